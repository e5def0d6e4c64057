"""Evaluate on captioned scenes: a method that follows the caption, one that does not, and the bounds beside them."""

import json

import pytest
import torch

from mmdiffusion.callbacks import Draw, Evaluate
from mmdiffusion.data import Shapes
from mmdiffusion.data.scenes import SCENE, Looks, draw
from mmdiffusion.methods.base import Method
from mmdiffusion.metrics import CaptionAccuracy
from mmdiffusion.seeding import SampleNoise
from tests.helpers import build_trainer

ALL, COLOUR = "caption_accuracy[scene-reader]", "colour_accuracy[scene-reader]"


class Painter(Method):
    """Paints what a caption says, with looks of its own, and the first `num_blind` samples in red."""

    def __init__(self, num_blind=0):
        super().__init__(torch.optim.SGD, warmup_steps=0, seed=0, givable=("caption",), drawable=("image",))
        self.weight, self.num_blind = torch.nn.Parameter(torch.zeros(1)), num_blind

    def losses(self, batch, generator):
        return {"loss": self.weight.square().sum()}

    def sample(self, condition, *, seeds, drawn=None, steps=None, guidance=None):
        assert set(condition) == {"caption"}, "a sampler sees no attributes"
        attributes = torch.stack([self.read(caption) for caption in condition["caption"]])
        is_blind = torch.tensor(seeds) < self.num_blind
        attributes[..., 1] = torch.where(is_blind[:, None], 0, attributes[..., 1])
        offset, stretch, shade = SampleNoise(0, seeds).uniform((7,)).split([4, 2, 1], dim=1)
        image, _ = draw(attributes, Looks(offset.unflatten(1, (2, 2)), stretch, shade[:, 0]))
        return {**condition, "image": image.float() / 127.5 - 1, "index": torch.tensor(seeds)}

    def read(self, caption):
        rows = torch.full((2, 4), -1)
        for row, phrase in zip(rows, caption.split(" and "), strict=False):
            _, size, colour, shape, _, _, *position = phrase.split()
            names = ((SCENE.shapes, shape), (SCENE.colours, colour), (SCENE.sizes, size))
            row[:] = torch.tensor([w.index(x) for w, x in (*names, (SCENE.positions, " ".join(position)))])
        return rows

    def protocol(self):
        return {"sampler": "painter"}


def measure(folder, method, **options):
    callback = Evaluate([CaptionAccuracy(), CaptionAccuracy("colour")], {"painted": Draw(["caption"])}, **options)
    build_trainer(folder, callback).test(method, datamodule=Shapes(num_train=100), verbose=False)
    return json.loads((folder / "metrics.json").read_text())


def test_a_method_that_follows_the_caption_stands_between_its_bounds(tmp_path):
    figures = measure(tmp_path, Painter(), num_samples=300, batch_size=100)
    assert figures[ALL]["real"]["value"] == figures[ALL]["painted"]["value"] == 1
    assert figures[ALL]["shuffled"]["value"] < 0.03
    assert figures[COLOUR]["shuffled"]["value"] < 0.3
    assert figures[ALL]["real"]["num_samples"] == 1000
    assert figures[ALL]["painted"]["num_samples"] == figures[ALL]["shuffled"]["num_samples"] == 300
    assert figures[ALL]["painted"]["made"]["given"] == ["caption"]


def test_a_method_that_does_not_is_found_out(tmp_path):
    figures = measure(tmp_path, Painter(num_blind=100), num_samples=200, batch_size=64)
    columns = Shapes(num_train=1).columns("test")["attributes"][:200]
    is_right = ((columns[..., 1] == 0) | (columns[..., 1] == -1)).all(1) | (torch.arange(200) >= 100)
    assert figures[ALL]["painted"]["value"] == pytest.approx(float(is_right.double().mean()))
    assert 0.5 <= figures[ALL]["painted"]["value"] < 0.6
