"""Statistics of references: computed once whatever the processes, read by a test, refused for another protocol."""

import json
from functools import partial
from typing import Any

import pytest
import torch

from mmdiffusion.callbacks import Draw, Evaluate, references
from mmdiffusion.callbacks.progress import StepProgress
from mmdiffusion.callbacks.references import check_statistics, compute_statistics, read_into
from mmdiffusion.data.base import Arrays
from mmdiffusion.data.encoding import Processes
from mmdiffusion.metrics import FrechetDistance, Reference, SmallClassifier
from mmdiffusion.metrics.reference import read_statistics
from tests.data.in_files import InFiles
from tests.helpers import Oracle, Pictures, build_trainer, check
from tests.metrics.test_reference import Means


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(references, "_PART_ROWS", 7)


def compute(path, data=None, processes=Processes(), split="train", num_rows=None):  # noqa: B008
    metric, bar = FrechetDistance(Means(), Reference(str(path), split, num_rows)), StepProgress()
    bar.disable()
    compute_statistics(metric, data or Pictures(), processes, bar)
    return metric


@pytest.mark.parametrize(("num_rows", "count"), [(None, 16), (5, 5), (37, 37)])
def test_statistics_are_those_of_the_rows(tmp_path, num_rows, count):
    compute(tmp_path / "a", num_rows=num_rows)
    stored = read_statistics(str(tmp_path / "a"))
    rows = Reference("a", num_rows=num_rows).rows(16)
    features = Means().features(Pictures().rows("train", rows)["image"]).double()
    assert int(stored["count"]) == len(rows) == count
    torch.testing.assert_close(stored["sum"], features.sum(0))
    torch.testing.assert_close(stored["outer"], features.T @ features)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("data", [Pictures, InFiles])
def test_two_processes_compute_what_one_computes(tmp_path, data):
    compute(tmp_path / "one", data())
    for rank in (1, 0):
        assert not (tmp_path / "two").exists()
        compute(tmp_path / "two", data(), Processes(rank, 2))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_interrupted_computation_goes_on(tmp_path, monkeypatch):
    compute(tmp_path / "one")
    update, seen = FrechetDistance.update, []

    def count(metric, image, real=False):
        seen.append(len(image))
        if sum(seen) > 14:
            raise KeyboardInterrupt
        update(metric, image, real)

    monkeypatch.setattr(FrechetDistance, "update", count)
    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path / "two")
    seen[:] = []
    compute(tmp_path / "two")
    assert sum(seen) == 2, "two of three parts were there"
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_is_there_is_not_computed_again(tmp_path, monkeypatch):
    compute(tmp_path / "a")
    monkeypatch.setattr(FrechetDistance, "update", lambda *_: pytest.fail("computed again"))
    compute(tmp_path / "a")


# Read by a test ------------------------------------------------------------------------------------------------


def measure(folder, metric, data=None):
    callback = Evaluate([metric], {"conditional": Draw(["label"])}, 40, 16)
    build_trainer(folder, callback).test(Oracle(), datamodule=data or Pictures(), verbose=False)
    return json.loads((folder / "metrics.json").read_text())


def test_stored_references_give_what_fed_ones_give(tmp_path):
    stored = measure(tmp_path, compute(tmp_path / "a", split="test"))["fid[means, test]"]
    fed = measure(tmp_path, FrechetDistance(Means()))["fid[means]"]
    for column in ("conditional", "real"):
        assert stored[column]["value"] == pytest.approx(fed[column]["value"], rel=1e-9)
        assert stored[column]["num_references"] == 30
    assert stored["real"]["num_samples"] == 16, "training data against test references"
    assert stored["conditional"]["reference"] == f"test, {tmp_path / 'a'}"


def test_training_references_are_compared_with_other_real_data(tmp_path):
    figures = measure(tmp_path, compute(tmp_path / "a"))["fid[means, train]"]
    assert figures["real"]["num_samples"] == 30, "the test split, not what is already in the references"
    assert figures["real"]["num_references"] == 16


def test_only_the_first_process_brings_the_sums(tmp_path):
    metric = compute(tmp_path / "a")
    read_into(metric, Pictures(), is_first=False)
    assert int(metric.real_count) == 0
    read_into(metric, Pictures(), is_first=True)
    assert int(metric.real_count) == 16


def test_data_that_are_not_in_memory_are_evaluated(tmp_path):
    figures = measure(tmp_path, compute(tmp_path / "a", InFiles(), num_rows=40), InFiles())
    assert figures["fid[means, 40 of train]"]["conditional"]["num_references"] == 40
    fed = measure(tmp_path, FrechetDistance(Means()), InFiles())["fid[means]"]
    assert fed["real"]["num_samples"] == 23


# Refused -------------------------------------------------------------------------------------------------------


class Others(Means):
    def signature(self):
        return "other means"


class Brighter(Pictures):
    def split(self, name):
        columns: Any = super().split(name).columns
        return Arrays(columns | {"image": (columns["image"] + 0.5).clamp(-1, 1)})


def build(path, *reference, extractor=Means):
    return FrechetDistance(extractor(), Reference(str(path), *reference))


@pytest.mark.parametrize(
    ("change", "data", "message"),
    [
        (partial(build, extractor=Others), Pictures, "extractor means: this configuration has other means"),
        (lambda path: build(path, "test"), Pictures, "split train: this configuration has test"),
        (lambda path: build(path, "train", 30_000), Pictures, "references 16: this configuration has 30000"),
        (build, partial(Pictures, num_train=17), "split rows 16: this configuration has 17"),
        (build, InFiles, "data Pictures: this configuration has InFiles"),
        (build, Brighter, "data Pictures: this configuration has Brighter"),
    ],
)
def test_another_protocol_is_refused(tmp_path, change, data, message):
    compute(tmp_path / "a")
    with pytest.raises(ValueError, match=f"a was prepared with .*{message}; prepare another"):
        check_statistics(change(tmp_path / "a"), data(), is_fitted=True)


def test_other_images_are_refused(tmp_path):
    compute(tmp_path / "a", InFiles())
    with pytest.raises(ValueError, match="its statistics are of other images than train of InFiles"):
        check_statistics(build(tmp_path / "a"), InFiles(look=1), is_fitted=True)


def test_random_crops_are_refused_in_references_and_accepted_in_a_training(tmp_path):
    with pytest.raises(ValueError, match=r"the train split draws image at random: .*--data\.init_args"):
        compute(tmp_path / "a", InFiles(is_random=True))
    check_statistics(compute(tmp_path / "a", InFiles()), InFiles(is_random=True), is_fitted=True)


def test_missing_statistics_are_named_before_a_training(tmp_path):
    with pytest.raises(ValueError, match=r"reference\.path is .*: no such file; compute it with `mmdiffusion prepare"):
        check(Evaluate([build(tmp_path / "a")], {"joint": Draw([])}), Oracle(), Pictures())


def test_an_extractor_that_is_yet_to_learn_is_compared_later(tmp_path):
    data = Pictures()
    metric = FrechetDistance(SmallClassifier(num_steps=2), Reference(str(tmp_path / "a")))
    metric.fit(data.columns("train")["image"], data.columns("train")["label"])
    bar = StepProgress()
    bar.disable()
    compute_statistics(metric, data, Processes(), bar)
    check_statistics(metric, data, is_fitted=True)
    fresh = FrechetDistance(SmallClassifier(num_steps=2), Reference(str(tmp_path / "a")))
    check_statistics(fresh, data, is_fitted=False)
    other = FrechetDistance(SmallClassifier(), Reference(str(tmp_path / "a")))
    other.extractor.num_fitted = 16
    with pytest.raises(ValueError, match="400 steps"):
        check_statistics(other, data, is_fitted=True)
