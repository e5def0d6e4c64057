"""Where MT-Diffusion is plain diffusion: without extras, and where they encode to nothing."""

import pytest
import torch

from mmdiffusion.diffusion import CosineSchedule, NoDrift
from mmdiffusion.diffusion.gaussian import GaussianDiffusion
from mmdiffusion.methods.extras import Extra
from mmdiffusion.nn import IdentityEncoder, NoEncoder
from mmdiffusion.seeding import SampleNoise
from tests.helpers import generator
from tests.methods.build_extras import DRIFT, SETTINGS, T, batch_of, build


def test_without_extras_the_loss_is_the_plain_one_bit_for_bit():
    """Ho et al. 2020, Eq. 14, written with a plain process and the same draws."""
    method, batch, draws = build(), batch_of(), generator(5)
    terms, plain = method.losses(batch, generator(5)), GaussianDiffusion(CosineSchedule(T))
    time = torch.randint(1, T + 1, (12,), generator=draws)
    noise = torch.randn(12, 1, 8, 8, generator=draws)
    noisy = plain.corrupt(batch["image"], time, noise)
    prediction, outputs = method.network(noisy, time, [])
    squared = (prediction - plain.target(batch["image"], time, noise)).square().flatten(1).mean(1).mean()
    assert torch.equal(terms["loss"], squared)
    assert not outputs
    assert method.drawable == ("image",)
    assert method.givable == ()


def ddim(noisy, clean, alpha_bar, target, noise):
    """Song et al. 2021, Eq. 12 with sigma = 0: the noise between the two goes on."""
    signal, level = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
    return target.sqrt().float() * clean + (1 - target).sqrt().float() * ((noisy - signal * clean) / level)


def ddpm(noisy, clean, alpha_bar, target, noise):
    """Ho et al. 2020, Eq. 6-7, for the step from t to any earlier one."""
    log_alpha = alpha_bar.log().float() - target.log().float()
    alpha, beta = log_alpha.exp(), -torch.expm1(log_alpha)
    now, then = ((1 - x).sqrt().float() ** 2 for x in (alpha_bar, target))
    mean = (alpha.sqrt() * then * noisy + beta * target.sqrt().float() * clean) / now
    return mean + (beta * then / now).sqrt() * noise


@pytest.mark.parametrize("step", [ddim, ddpm])
def test_without_extras_samples_are_those_of_a_plain_loop_bit_for_bit(step):
    """From noise of variance 1, over the times 50, 38, 25, 12 and 0, each clean image clipped to [-1, 1]."""
    method, noise = build(sampler=step.__name__), SampleNoise(0, [3, 4])
    alpha_bar, noisy = CosineSchedule(T).alpha_bar(), noise.normal((1, 8, 8))
    for t, s in ((50, 38), (38, 25), (25, 12), (12, 0)):
        with torch.no_grad():
            velocity, _ = method.network(noisy, torch.tensor([t, t]), [])
        clean = alpha_bar[t].sqrt().float() * noisy - (1 - alpha_bar[t]).sqrt().float() * velocity
        fresh = noise.normal((1, 8, 8)) if step is ddpm else None
        noisy = step(noisy, clean.clamp(-1, 1), alpha_bar[t], alpha_bar[s], fresh)
    sample = method.sample({}, seeds=[3, 4])
    assert set(sample) == {"image", "index"}
    assert noisy.std() > 0.1, "an empty image would prove nothing"
    assert torch.equal(sample["image"], noisy.clamp(-1, 1))


@pytest.mark.parametrize("name", ["label", "masked"])
def test_an_encoding_of_zero_leaves_plain_diffusion(name):
    """A complete mask encodes to nothing: z_t, and what is drawn, is that of a model without drift."""
    value = torch.zeros(4, 2, 8, 8) if name == "masked" else torch.arange(4)
    encoder = NoEncoder if name == "label" else IdentityEncoder
    first, second = (
        build(name, settings={name: Extra(encoder, SETTINGS[name].head, drift)}) for drift in (DRIFT, NoDrift())
    )
    assert torch.equal(
        first.sample({name: value}, seeds=range(4))["image"], second.sample({name: value}, seeds=range(4))["image"]
    )
