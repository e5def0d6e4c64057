"""MT-Diffusion on latents of a frozen codec: what it is on images of the latents' shape."""

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.callbacks import Bound
from mmdiffusion.codecs.latents import LatentCodec
from mmdiffusion.types import ImageSpec, LabelSpec, MaskedSpec
from tests.helpers import SPEC, Pictures, build_batch, build_method, build_trainer, generator
from tests.methods.build_extras import SETTINGS
from tests.methods.spy import Spy


class Halves(LatentCodec):
    """Latents of half the side and twice the size, with a deviation."""

    def __init__(self, spec):
        super().__init__(spec["image"], ImageSpec(1, spec["image"].size // 2), clip=None)

    def parts(self, values):
        mean = 2 * F.avg_pool2d(values, 2)
        return {"mean": mean, "deviation": torch.full_like(mean, 0.5)}

    def decode(self, latents):
        return (latents / 2).repeat_interleave(2, -1).repeat_interleave(2, -2)


def both(**settings):
    """A model on latents, and the same network on images of their shape."""
    on_latents = build_method(codec=Halves, patch_size=2, **settings)
    on_images = build_method(spec={"image": ImageSpec(1, 4), "label": LabelSpec(10)}, patch_size=2, **settings)
    return on_latents.eval(), on_images.eval()


def latents(batch):
    return batch | {"image": Halves(SPEC).parts(batch["image"])["mean"]}


def test_validation_is_that_of_the_mean_latents():
    on_latents, on_images = both()
    batch = build_batch()
    found, expected = on_latents.losses(batch, generator()), on_images.losses(latents(batch), generator())
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_training_draws_latents(monkeypatch):
    method, batch = build_method(codec=Halves, patch_size=2), build_batch(500)
    corrupt = Spy(monkeypatch, method.diffusion, "corrupt")
    method.losses(batch, generator())
    deviation = corrupt.calls[0][0] - latents(batch)["image"]
    assert deviation.mean().abs() < 0.03
    assert deviation.std().item() == pytest.approx(0.5, abs=0.02)


def test_latents_of_a_cache_are_those_of_the_images():
    method, batch = build_method(codec=Halves, patch_size=2), build_batch()
    stored = method.codec.stored(batch)
    assert set(stored) == {"image.mean", "image.deviation"}
    without = {name: values for name, values in batch.items() if name != "image"}
    first, second = (method.losses(one, generator())["loss"] for one in (batch, without | stored))
    assert torch.equal(first, second)
    assert method.encoders() == [method.codec]


def test_known_images_are_read_as_their_latents():
    on_latents, on_images = both()
    batch = build_batch()
    assert torch.equal(on_latents.classify(batch), on_images.classify(latents(batch)))


def test_drawn_latents_are_decoded_and_not_clipped():
    on_latents, on_images = both()
    on_images.codec.clip = None
    label = torch.arange(6)
    made, small = (method.sample({"label": label}, seeds=range(6))["image"] for method in (on_latents, on_images))
    assert made.shape == (6, 1, 8, 8)
    latent = 2 * made[..., ::2, ::2]
    assert latent.abs().max() > 1
    torch.testing.assert_close(latent.clamp(-1, 1), small)


def test_pictures_of_another_shape_are_no_modality_beside_latents():
    spec = SPEC | {"masked": MaskedSpec(1, 8)}
    with pytest.raises(ValueError, match=r"IdentityEncoder has .*: expected 1 channels of 4 x 4"):
        build_method(spec=spec, codec=Halves, patch_size=2, extras={"masked": SETTINGS["masked"]})


def test_a_patch_that_does_not_divide_the_latents_is_named():
    with pytest.raises(ValueError, match="patch_size is 8: expected a divisor of 4, the side"):
        build_method(codec=Halves, patch_size=8)


def test_latents_have_no_bound(tmp_path):
    with pytest.raises(ValueError, match="Bound has the codec Halves: expected Pixels"):
        build_trainer(tmp_path, Bound(), max_steps=1).fit(
            build_method(codec=Halves, patch_size=2), datamodule=Pictures()
        )
