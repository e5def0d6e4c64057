"""MT-Diffusion with any extra modalities: its loss and gradients, one space, settings that do not fit."""

from functools import partial

import pytest
import torch

from mmdiffusion.diffusion import CosineSchedule
from mmdiffusion.diffusion.gaussian import GaussianDiffusion
from mmdiffusion.masks import PatchMask
from mmdiffusion.methods import MTDiffusion
from mmdiffusion.methods.extras import Extra
from mmdiffusion.nn import Denoiser, IdentityEncoder, Level, TokensHead
from mmdiffusion.types import FeatureSpec
from tests.helpers import generator
from tests.methods.build_extras import DRIFT, SETTINGS, SPEC, T, batch_of, build

# Training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [(), ("label",), ("segmentation",), ("feature", "feature_map"), tuple(SETTINGS)])
def test_gradients_reach_every_weight(names):
    method = build(*names)
    terms = method.losses(batch_of(64), generator())
    assert set(terms) == {"loss", "mse", *names, *(f"{name}_absent" for name in names)}
    terms["loss"].backward()
    assert not [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_loss_is_the_weighed_sum():
    settings = {
        n: Extra(e.encoder, e.head, e.drift, 0.1 * (i + 1), mask=e.mask) for i, (n, e) in enumerate(SETTINGS.items())
    }
    terms = build(*settings, settings=settings).losses(batch_of(), generator())
    expected = terms["mse"] + sum(0.1 * (i + 1) * terms[name] for i, name in enumerate(settings))
    torch.testing.assert_close(terms["loss"], expected)


def test_a_learned_uncertainty_is_at_its_optimum_where_it_equals_the_log_of_the_loss():
    method = build("label", "feature", uncertainty=True)
    losses = {"label": torch.tensor(2.3), "feature": torch.tensor(0.4)}
    with torch.no_grad():
        for name, value in losses.items():
            method.log_variance[name].copy_(value.log())
    parts = method.weighed({"mse": torch.zeros(())} | losses)
    total = sum(parts[name] for name in losses)
    torch.testing.assert_close(total, sum(0.1 * (1 + value.log()) for value in losses.values()))
    total.backward()
    for name in losses:
        assert method.log_variance[name].grad.abs() < 1e-6


def test_a_modality_is_dropped_from_space_and_network_together():
    """What is absent enters nowhere: other values of it give the same loss of the image."""
    absent = {
        name: Extra(e.encoder, e.head, e.drift, absent_share=1.0, shown_share=0.0) for name, e in SETTINGS.items()
    }
    method, batch = build(*absent, settings=absent), batch_of()
    other = batch_of(seed=1) | {"image": batch["image"]}
    first, second = (method.losses(one, generator()) for one in (batch, other))
    assert torch.equal(first["mse"], second["mse"])
    assert all(not torch.equal(first[name], second[name]) for name in SETTINGS if name != "label")


# The space -----------------------------------------------------------------------------------------------------


def test_own_channels_with_a_single_shot_are_joint_diffusion_of_the_whole():
    """With strength 1 the state is that of plain diffusion over image, map and vector side by side (derived)."""
    method, batch = build("feature", "feature_map"), batch_of()
    encoded = {
        name: method.space.lift(method.extra(name).encode(batch[name]), method.extra(name))
        for name in method.network.extras
    }
    time, noise = torch.randint(1, T + 1, (12,), generator=generator()), torch.randn(12, 4, 8, 8, generator=generator())
    state = method.diffusion.corrupt(method.space.lift(batch["image"]), time, noise, encoded)
    feature_map = 0.5 * batch["feature_map"].repeat_interleave(2, 2).repeat_interleave(2, 3)
    vector = torch.nn.functional.pad(batch["feature"], (0, 58)).unflatten(1, (1, 8, 8))
    whole = torch.cat([batch["image"], feature_map, vector], dim=1)
    torch.testing.assert_close(state, GaussianDiffusion(CosineSchedule(T)).corrupt(whole, time, noise))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun"])
def test_with_perfect_heads_everything_is_drawn_along_one_line(monkeypatch, sampler):
    """A network that knows all three: they come out, and without fresh noise the state keeps its own."""
    method, batch = build("feature", "feature_map", sampler=sampler), batch_of(3)
    names = ("feature", "feature_map")

    def exact(noisy, time, told):
        noise = method.diffusion.noise_between(noisy[:, :1], batch["image"], time)
        return method.diffusion.target(batch["image"], time, noise), {name: batch[name] for name in names}

    monkeypatch.setattr(method.network, "forward", exact)
    states, step = [], method.diffusion.step

    def kept(predict, noisy, time, target, **options):
        states.append((time, noisy))
        return step(predict, noisy, time, target, **options)

    monkeypatch.setattr(method.diffusion, "step", kept)
    sample = method.sample({}, seeds=range(3))
    for name in ("image", *names):
        torch.testing.assert_close(sample[name], batch[name], atol=1e-4, rtol=0)
    if sampler != "ddpm":
        encoded = sum(method.space.lift(method.extra(name).encode(batch[name]), method.extra(name)) for name in names)
        whole = method.space.lift(batch["image"]) + encoded
        noises = [method.diffusion.noise_between(state, whole, time) for time, state in states]
        for noise in noises[1:]:
            torch.testing.assert_close(noise, noises[0], atol=1e-4, rtol=0)


def test_two_tokens_of_their_own_are_one_too_many():
    settings = {"feature": SETTINGS["feature"], "other": SETTINGS["feature"]}
    with pytest.raises(ValueError, match="extras has OwnToken for feature and other: expected one at most"):
        MTDiffusion(
            SPEC | {"other": FeatureSpec((6,))},
            partial(Denoiser, levels=[Level(16, 1, 2)]),
            CosineSchedule(T),
            settings,
        )


# Mistakes ------------------------------------------------------------------------------------------------------


def test_a_mask_that_does_not_fit_is_named_before_training():
    with pytest.raises(ValueError, match="patch_size of the mask is 16: expected at most the image's 8"):
        build("masked", settings={"masked": Extra(IdentityEncoder, TokensHead, DRIFT, mask=PatchMask())})


def test_an_unknown_modality_is_named():
    with pytest.raises(
        ValueError, match="extras has 'depth': expected a modality of the data beside the image, it has"
    ):
        build("depth", settings={"depth": SETTINGS["label"]})
