"""Encoders: parts that a batch brings or that are made now, and an identity of what encodes."""

import pytest
import torch

from mmdiffusion.codecs import GreyLevels, HashTower, ImageTower, LatentCodec, Pixels
from mmdiffusion.types import ImageSpec, TextSpec
from tests.helpers import SPEC, build_batch, generator

TEXTS = {"caption": TextSpec(4)}


class Colours(ImageTower):
    def __init__(self, source="here", seed=0):
        super().__init__(2, source)
        self.project = torch.nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            self.project.weight.normal_(generator=generator(seed))

    def forward(self, images):
        return self.project(images.mean((1, 2, 3))[:, None])


class Noisy(LatentCodec):
    """Latents twice the images, with a deviation of 3."""

    def __init__(self, spec):
        super().__init__(spec["image"], spec["image"], clip=None)

    def parts(self, values):
        return {"mean": 2 * values, "deviation": torch.full_like(values, 3)}

    def decode(self, latents):
        return latents / 2


def test_parts_are_made_of_a_batch_that_does_not_bring_them():
    codec, batch = GreyLevels(SPEC), build_batch(3)
    assert torch.equal(codec.of(batch)["tokens"], codec.encode(batch["image"]))


def test_parts_that_a_batch_brings_are_taken_as_they_are():
    tokens = torch.arange(64).reshape(1, 8, 8) % 17
    assert torch.equal(GreyLevels(SPEC).of({"image.tokens": tokens})["tokens"], tokens)


def test_what_is_stored_is_what_is_read_back():
    tower, batch = HashTower(TEXTS, width=8), {"caption": ["a cat", "two dogs bark"]}
    stored = tower.stored(batch)
    assert set(stored) == {"caption.tokens", "caption.mask", "caption.summary"}
    text = tower(batch["caption"])
    for name, values in tower.of({**batch, **stored}).items():
        assert torch.equal(values, getattr(text, name))


def test_latents_are_drawn_from_stored_mean_and_deviation():
    codec, images = Noisy(SPEC), torch.rand(2, 1, 8, 8, generator=generator())
    noise = torch.randn(2, 1, 8, 8, generator=generator(1))
    parts = codec.of(codec.stored({"image": images}))
    assert torch.equal(codec.draw(parts), 2 * images)
    assert torch.equal(codec.draw(parts, noise), 2 * images + 3 * noise)
    assert torch.equal(codec.encode(images, noise), codec.draw(parts, noise))


def test_pixels_are_plain_and_draw_nothing():
    codec = Pixels(SPEC)
    assert codec.is_plain
    assert torch.equal(codec.encode(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: Colours(seed=0), lambda: Colours(seed=1)),
        (lambda: HashTower(TEXTS, width=8), lambda: HashTower(TEXTS, width=8, seed=1)),
        (lambda: HashTower(TEXTS, width=8), lambda: HashTower(TEXTS, width=8, max_ngram=2)),
        (lambda: GreyLevels(SPEC), lambda: GreyLevels({"image": ImageSpec(1, 8, num_levels=16)})),
    ],
)
def test_weights_and_settings_make_the_identity(one, other):
    assert one().identity() == one().identity()
    assert one().identity() != other().identity()


def test_where_weights_are_from_and_training_mode_make_no_difference():
    assert Colours("here").train().identity() == Colours("there").eval().identity()


def test_weights_beside_the_register_count():
    from tests.codecs.test_frozen import Signs

    codec = Signs(SPEC)
    before = codec.identity()
    assert Signs(SPEC).identity() == before
    with torch.no_grad():
        codec.network.project.weight.add_(1e-3)
    assert codec.identity() != before
