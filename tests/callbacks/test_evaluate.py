"""Evaluate on a method that never errs: the columns of its table, what stands in metrics.json, and who sees what."""

import json
from weakref import WeakSet

import pytest
import torch

from mmdiffusion.callbacks import Draw, Evaluate
from mmdiffusion.metrics import ClassificationAccuracy, JudgedAccuracy
from tests.callbacks.measuring import CLASSIFIED, DISTANCE, DRAWS, JUDGED, build_metrics, measure
from tests.helpers import Oracle, Pictures, PixelJudge, build_trainer

# Columns and figures -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    return measure(tmp_path_factory.mktemp("run"))


def test_columns(figures):
    assert {name: set(columns) for name, columns in figures.items()} == {
        CLASSIFIED: {"classify"},
        JUDGED: {"conditional", "joint", "shuffled", "real"},
        DISTANCE: {"conditional", "joint", "real"},
    }


def test_a_perfect_method_reaches_its_bounds(figures):
    assert figures[CLASSIFIED]["classify"]["value"] == 1
    for column in ("conditional", "joint", "real"):
        assert figures[JUDGED][column]["value"] == 1


def test_every_figure_has_its_number_of_samples_and_protocol(figures):
    for columns in figures.values():
        for figure in columns.values():
            assert {"value", "num_samples"} <= set(figure)
    assert figures[JUDGED]["conditional"]["num_samples"] == 40
    assert figures[JUDGED]["shuffled"]["num_samples"] == 40
    assert figures[JUDGED]["real"]["num_samples"] == 30, "the test split is the upper bound"
    assert figures[CLASSIFIED]["classify"]["num_samples"] == 30
    assert figures[DISTANCE]["conditional"]["num_references"] == 30
    assert figures[DISTANCE]["real"]["num_samples"] == 16, "training data against test references"
    assert figures[DISTANCE]["joint"]["extractor"].startswith("tiny, ")


def test_a_figure_says_how_its_samples_were_made(figures):
    made = figures[JUDGED]["conditional"]["made"]
    assert made == {"sampler": "oracle", "checkpoint": "None", "split": "test", "given": ["label"], "drawn": ["image"]}
    assert figures[JUDGED]["joint"]["made"]["drawn"] == ["image", "label"]
    assert "made" not in figures[JUDGED]["real"]


def test_the_control_is_near_chance(tmp_path):
    judged = measure(tmp_path, num_samples=1000, batch_size=250, metrics=[JudgedAccuracy(PixelJudge())])[JUDGED]
    assert judged["shuffled"]["value"] == pytest.approx(0.1, abs=0.04)
    assert judged["conditional"]["value"] == 1


def test_classification_is_measured_where_it_is_asked_for(tmp_path):
    method = Oracle()
    method.classify = None
    with pytest.raises(ValueError, match="metrics has classify_accuracy: Oracle does not classify"):
        measure(tmp_path, method)
    assert CLASSIFIED not in measure(tmp_path, method, metrics=[JudgedAccuracy(PixelJudge())])


def test_draws_without_a_given_label_have_no_control(tmp_path):
    figures = measure(tmp_path, draws={"joint": Draw([])})
    assert set(figures[JUDGED]) == {"joint", "real"}


def test_every_draw_with_a_given_label_has_its_control(tmp_path):
    draws = {"one": Draw(["label"]), "two": Draw(["label"])}
    figures = measure(tmp_path, draws=draws, metrics=[JudgedAccuracy(PixelJudge())])
    assert set(figures[JUDGED]) == {"one", "two", "real", "one, shuffled", "two, shuffled"}


def test_validate_measures_on_the_validation_split(tmp_path):
    callback = Evaluate([JudgedAccuracy(PixelJudge())], DRAWS, 40, 16)
    build_trainer(tmp_path, callback).validate(Oracle(), datamodule=Pictures(), verbose=False)
    assert not (tmp_path / "metrics.json").exists()
    figures = json.loads((tmp_path / "metrics-val.json").read_text())
    assert figures[JUDGED]["real"]["num_samples"] == 10
    assert figures[JUDGED]["joint"]["made"]["split"] == "val"


def test_the_table_is_printed_with_whole_names(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    measure(tmp_path)
    out = capsys.readouterr().out
    for word in (JUDGED, CLASSIFIED, DISTANCE, "conditional", "joint", "classify", "real", "shuffled"):
        assert word in out


# Samples and batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "drawn", "real"), [(1, 10, 10), (2, 20, 20), (0.5, 20, 15)])
def test_a_limit_of_test_batches_limits_samples_and_rows(tmp_path, limit, drawn, real):
    limited = measure(tmp_path, limit_test_batches=limit)
    assert limited[JUDGED]["conditional"]["num_samples"] == limited[JUDGED]["shuffled"]["num_samples"] == drawn
    assert limited[JUDGED]["real"]["num_samples"] == limited[CLASSIFIED]["classify"]["num_samples"] == real
    assert limited[DISTANCE]["joint"]["num_references"] == real


@pytest.mark.parametrize("batch_size", [1, 7])
def test_no_figure_depends_on_the_batch_size(tmp_path, batch_size):
    metrics = [JudgedAccuracy(PixelJudge()), ClassificationAccuracy()]
    tens = measure(tmp_path / "40", metrics=metrics, batch_size=40)
    assert measure(tmp_path / "other", metrics=metrics, batch_size=batch_size) == tens


def test_draws_come_in_batches_of_the_given_size(tmp_path):
    method = Oracle()
    measure(tmp_path, method, num_samples=20, batch_size=8, metrics=[JudgedAccuracy(PixelJudge())])
    assert method.batch_sizes == [8, 8, 4, 8, 8, 4]


class Watching(Oracle):
    """Notes how many of its samples are alive when the next ones are drawn."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = WeakSet(), 0

    def sample(self, *arguments, **settings):
        self.most = max(self.most, len(self.alive))
        samples = super().sample(*arguments, **settings)
        self.alive.add(samples["image"])
        return samples


def test_one_batch_of_samples_is_in_memory_at_a_time(tmp_path):
    method = Watching()
    measure(tmp_path, method, batch_size=2)
    assert method.most == 1, "the one before the one that is drawn"


# Metrics and generators ----------------------------------------------------------------------------------------


def test_a_second_test_starts_afresh(tmp_path):
    metrics = build_metrics()
    assert measure(tmp_path, metrics=metrics) == measure(tmp_path, metrics=metrics)


class Reader(JudgedAccuracy):
    """Keeps what it was fitted on."""

    def fit(self, data, labels):
        self.seen = data, labels


def test_a_metric_is_fitted_on_the_training_entries_it_names(tmp_path):
    reader, counter = Reader(PixelJudge()), ClassificationAccuracy()
    counter.fit = None  # never called, as it names no entry
    measure(tmp_path, num_samples=4, metrics=[reader, counter])
    train = Pictures().columns("train")
    assert torch.equal(reader.seen[0], train["image"])
    assert torch.equal(reader.seen[1], train["label"])


class Watched(Evaluate):
    """Keeps the global generator's state before and after."""

    def on_test_epoch_end(self, trainer, pl_module):
        self.states = [torch.get_rng_state()]
        super().on_test_epoch_end(trainer, pl_module)
        self.states.append(torch.get_rng_state())


def test_measuring_leaves_the_global_generator(tmp_path):
    callback = Watched(build_metrics(), DRAWS, num_samples=10)
    build_trainer(tmp_path, callback).test(Oracle(), datamodule=Pictures(), verbose=False)
    assert torch.equal(*callback.states)
