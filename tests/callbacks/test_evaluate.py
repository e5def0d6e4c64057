"""Evaluate on a method that never errs: the columns of its table, what stands in metrics.json, and who sees what."""

import json
from functools import partial
from weakref import WeakSet

import pytest
import torch

from mmdiffusion.callbacks import Draw, Evaluate
from mmdiffusion.callbacks.column import Column
from mmdiffusion.callbacks.partners import in_turn
from mmdiffusion.data.base import Arrays
from mmdiffusion.methods.base import Method
from mmdiffusion.metrics import (
    ClassificationAccuracy,
    FrechetDistance,
    JudgedAccuracy,
    RetrievalRecall,
    SmallClassifier,
)
from mmdiffusion.metrics.base import SampleMetric
from tests.data.in_files import InFiles
from tests.helpers import Oracle, Pictures, PixelJudge, build_trainer, picture

DRAWS = {"conditional": Draw(["label"]), "joint": Draw([])}
JUDGED, CLASSIFIED, DISTANCE = "judged_accuracy[pixel]", "classify_accuracy", "fid[tiny]"


def build_metrics():
    extractor = SmallClassifier(name="tiny", num_features=4, num_steps=2)
    return [ClassificationAccuracy(), JudgedAccuracy(PixelJudge()), FrechetDistance(extractor)]


def measure(folder, method=None, num_samples=40, batch_size=16, draws=None, metrics=None, **settings):
    method = method or Oracle()
    callback = Evaluate(metrics or build_metrics(), draws or DRAWS, num_samples, batch_size)
    build_trainer(folder, callback, **settings).test(method, datamodule=Pictures(), verbose=False)
    return json.loads((folder / "metrics.json").read_text())


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


@pytest.mark.parametrize(("limit", "drawn", "real"), [(1, 10, 10), (2, 20, 20), (0.5, 20, 15)])
def test_a_limit_of_test_batches_limits_samples_and_rows(tmp_path, limit, drawn, real):
    limited = measure(tmp_path, limit_test_batches=limit)
    assert limited[JUDGED]["conditional"]["num_samples"] == limited[JUDGED]["shuffled"]["num_samples"] == drawn
    assert limited[JUDGED]["real"]["num_samples"] == limited[CLASSIFIED]["classify"]["num_samples"] == real
    assert limited[DISTANCE]["joint"]["num_references"] == real


class Choosy(JudgedAccuracy):
    """Needs many samples."""

    min_samples = 25


def test_a_metric_that_needs_more_samples_is_refused_or_left_out_where_there_are_fewer(tmp_path):
    with pytest.raises(ValueError, match=r"num_samples is 20: judged_accuracy\[pixel\] needs at least 25"):
        measure(tmp_path, num_samples=20, metrics=[Choosy(PixelJudge())])
    with pytest.warns(
        UserWarning, match=r"judged_accuracy\[pixel\] of \w+ is left out: it needs 25 samples, here are 20"
    ):
        figures = measure(tmp_path, metrics=[Choosy(PixelJudge()), ClassificationAccuracy()], limit_test_batches=2)
    assert set(figures) == {CLASSIFIED}


def test_the_control_is_near_chance(tmp_path):
    judged = measure(tmp_path, num_samples=1000, batch_size=250, metrics=[JudgedAccuracy(PixelJudge())])[JUDGED]
    assert judged["shuffled"]["value"] == pytest.approx(0.1, abs=0.04)
    assert judged["conditional"]["value"] == 1


@pytest.mark.parametrize("batch_size", [1, 7])
def test_no_figure_depends_on_the_batch_size(tmp_path, batch_size):
    metrics = [JudgedAccuracy(PixelJudge()), ClassificationAccuracy()]
    tens = measure(tmp_path / "40", metrics=metrics, batch_size=40)
    assert measure(tmp_path / "other", metrics=metrics, batch_size=batch_size) == tens


def test_draws_come_in_batches_of_the_given_size(tmp_path):
    method = Oracle()
    measure(tmp_path, method, num_samples=20, batch_size=8, metrics=[JudgedAccuracy(PixelJudge())])
    assert method.batch_sizes == [8, 8, 4, 8, 8, 4]


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


class Far(SampleMetric):
    """Mean distance of pictures from the real ones of their condition."""

    inputs = ("image", "reference_image")

    def __init__(self):
        super().__init__()
        self.add_state("distances", [], dist_reduce_fx="cat")

    def name(self):
        return "far"

    def protocol(self):
        return {"num_samples": self.num_samples}

    def update(self, image, reference):
        self.distances.append((image - reference).abs().flatten(1).mean(1))

    def compute(self):
        distances = torch.cat(self.distances)
        self.num_samples = len(distances)
        return distances.mean()


def test_samples_stand_beside_the_real_data_of_their_condition(tmp_path):
    figures = measure(tmp_path, metrics=[Far()], num_samples=30, draws={"conditional": Draw(["label"])})["far"]
    assert figures["real"]["value"] == 0
    assert figures["conditional"]["value"] < 0.2 < figures["shuffled"]["value"] * 8
    assert figures["shuffled"]["value"] > 1.1 * figures["conditional"]["value"]


def test_a_figure_says_how_its_samples_were_made(figures):
    made = figures[JUDGED]["conditional"]["made"]
    assert made == {"sampler": "oracle", "checkpoint": "None", "split": "test", "given": ["label"], "drawn": ["image"]}
    assert figures[JUDGED]["joint"]["made"]["drawn"] == ["image", "label"]
    assert "made" not in figures[JUDGED]["real"]


def test_validate_measures_on_the_validation_split(tmp_path):
    callback = Evaluate([JudgedAccuracy(PixelJudge())], DRAWS, 40, 16)
    build_trainer(tmp_path, callback).validate(Oracle(), datamodule=Pictures(), verbose=False)
    assert not (tmp_path / "metrics.json").exists()
    figures = json.loads((tmp_path / "metrics-val.json").read_text())
    assert figures[JUDGED]["real"]["num_samples"] == 10
    assert figures[JUDGED]["joint"]["made"]["split"] == "val"


@pytest.mark.parametrize("num_samples", [0, 10])
def test_a_process_without_samples_computes_what_the_others_compute(monkeypatch, num_samples):
    """To compute is to meet the other processes: one that stays away leaves them waiting."""
    computed, metrics = [], build_metrics()

    def note(name):
        computed.append(name)
        return 0.0

    label = torch.arange(num_samples)
    for metric in metrics[:2]:
        column = Column("joint", [metric], {"image", "label"}, 40, {})
        for chosen in column.metrics:
            monkeypatch.setattr(chosen, "compute", partial(note, metric.name()))
        if num_samples:
            column.update({"image": picture(label), "label": label})
        column.write({})
    assert computed == [JUDGED]


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


def test_columns_have_states_of_their_own():
    metric = RetrievalRecall()
    first, second = (Column(name, [metric], metric.inputs, 40, {}) for name in ("first", "second"))
    embedding = torch.eye(3)
    for column, other in ((first, embedding), (second, embedding.roll(1, 0))):
        batch = {"image_embedding": embedding, "text_embedding": other, "caption": ["a", "b", "c"]}
        column.update({name: batch.get(name, torch.arange(3)) for name in metric.inputs})
    figures = {}
    first.write(figures)
    second.write(figures)
    assert {name: figure["value"] for name, figure in figures[metric.name()].items()} == {"first": 1, "second": 0}


def test_real_training_samples_are_balanced():
    label = torch.tensor([3, 3, 1, 3, 1, 0, 1])
    assert in_turn({"label": label, "index": label}).tolist() == [0, 2, 5, 1, 4, 3, 6]
    assert in_turn({"index": label}).tolist() == list(range(7))


def test_a_second_test_starts_afresh(tmp_path):
    metrics = build_metrics()
    assert measure(tmp_path, metrics=metrics) == measure(tmp_path, metrics=metrics)


def test_the_table_is_printed_with_whole_names(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    measure(tmp_path)
    out = capsys.readouterr().out
    for word in (JUDGED, CLASSIFIED, DISTANCE, "conditional", "joint", "classify", "real", "shuffled"):
        assert word in out


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


def test_an_entry_that_the_training_split_lacks_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"judged_accuracy\[pixel\] learns from tokens, expected.*which has index, image, label"
    ):
        measure(tmp_path, metrics=[JudgedAccuracy(PixelJudge(), entry="tokens")])


def test_a_metric_that_learns_from_a_split_in_files_is_refused_before_a_training():
    callback = Evaluate([JudgedAccuracy(PixelJudge())], DRAWS)
    with pytest.raises(ValueError, match=r"judged_accuracy\[pixel\] learns from image and label.*pretrained"):
        callback.check(Oracle(), InFiles())


def test_metrics_with_one_name_are_refused():
    metrics: list[SampleMetric] = [JudgedAccuracy(PixelJudge()), JudgedAccuracy(PixelJudge())]
    with pytest.raises(ValueError, match=r"metrics.*judged_accuracy\[pixel\]"):
        Evaluate(metrics, DRAWS)


@pytest.mark.parametrize("name", ["classify", "real", "shuffled"])
def test_a_draw_with_the_name_of_another_column_is_refused(name):
    with pytest.raises(ValueError, match=rf"draws.*{name}"):
        Evaluate(build_metrics(), {name: Draw(["label"])})


@pytest.mark.parametrize("setting", ["num_samples", "batch_size"])
def test_sizes_below_one_are_refused(setting):
    with pytest.raises(ValueError, match=rf"{setting} is 0.*expected at least 1"):
        Evaluate([], DRAWS, **{setting: 0})


def test_an_unknown_modality_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"draws.conditional: given is 'lable': expected label from this model"):
        measure(tmp_path, draws={"conditional": Draw(["lable"])})


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


class Copied(Method):
    """Draws pictures for labels, and labels for pictures."""

    def __init__(self):
        super().__init__(
            torch.optim.SGD, warmup_steps=0, seed=0, givable=("label", "image"), drawable=("image", "label")
        )

    def losses(self, batch, generator):
        return {}

    def sample(self, condition, *, seeds, drawn=None, steps=None, guidance=None):
        label = condition.get("label", torch.zeros(len(seeds), dtype=torch.int64))
        assert isinstance(label, torch.Tensor)
        return {"image": picture(label), "label": label, "index": torch.tensor(seeds)} | condition

    def protocol(self):
        return {}


def test_what_was_given_is_not_judged(tmp_path):
    draws = {"picture": Draw(["label"]), "reading": Draw(["image"])}
    callback = Evaluate([JudgedAccuracy(PixelJudge())], draws, num_samples=10)
    build_trainer(tmp_path, callback).test(Copied(), datamodule=Pictures(), verbose=False)
    row = json.loads((tmp_path / "metrics.json").read_text())["judged_accuracy[pixel]"]
    assert set(row) == {"picture", "picture, shuffled", "real"}
    assert row["picture"]["value"] == 1


def test_labels_are_those_of_the_rows_where_samples_are_compared_with_these(tmp_path):
    """Rows of `Pictures` have labels of their own; a label in turn would belong to another row."""

    class Reversed(Pictures):
        def split(self, name):
            columns = dict(super().split(name).columns)
            return Arrays({entry: values.flip(0) for entry, values in columns.items() if entry != "index"})

    metrics: list[SampleMetric] = [JudgedAccuracy(PixelJudge(), label="reference_label")]
    callback = Evaluate(metrics, {"picture": Draw(["label"])}, num_samples=10)
    build_trainer(tmp_path, callback).test(Copied(), datamodule=Reversed(), verbose=False)
    assert json.loads((tmp_path / "metrics.json").read_text())["judged_accuracy[pixel]"]["picture"]["value"] == 1
