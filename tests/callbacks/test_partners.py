"""What samples are measured beside: real data of their condition, labels of their rows, and nothing they were given."""

import json

import torch

from mmdiffusion.callbacks import Draw, Evaluate
from mmdiffusion.callbacks.partners import in_turn
from mmdiffusion.data.base import Arrays
from mmdiffusion.methods.base import Method
from mmdiffusion.metrics import JudgedAccuracy
from mmdiffusion.metrics.base import SampleMetric
from tests.callbacks.measuring import measure
from tests.helpers import Pictures, PixelJudge, build_trainer, picture


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


def test_real_training_samples_are_balanced():
    label = torch.tensor([3, 3, 1, 3, 1, 0, 1])
    assert in_turn({"label": label, "index": label}).tolist() == [0, 2, 5, 1, 4, 3, 6]
    assert in_turn({"index": label}).tolist() == list(range(7))


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
