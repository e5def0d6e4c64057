"""The bound in bits per dimension: the decoder's probabilities, exact posterior means, its terms."""

import math

import pytest
import torch
from torch.distributions import Normal

from mmdiffusion.diffusion import CosineSchedule, GaussianDiffusion, LinearSchedule, bits_per_dim
from mmdiffusion.diffusion.bound import decoder_nll
from mmdiffusion.diffusion.gaussian import PredictionKind
from tests.diffusion.gaussian_oracles import KINDS, normal

# The decoder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_levels", [2, 17, 256])
@pytest.mark.parametrize("estimated", [-1.3, -0.2, 0.0, 0.999])
@pytest.mark.parametrize("t", [1, 5, 100])
def test_probabilities_of_all_grey_levels_sum_to_one(num_levels, estimated, t):
    diffusion = GaussianDiffusion(LinearSchedule(100), dtype=torch.float64)
    levels = torch.linspace(-1, 1, num_levels, dtype=torch.float64)[:, None]
    nll = decoder_nll(diffusion, levels, torch.full_like(levels, estimated), torch.full((num_levels,), t), num_levels)
    assert float((-nll).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_decoder_integrates_the_gaussian_over_the_bin():
    diffusion = GaussianDiffusion(LinearSchedule(100), dtype=torch.float64)
    clean, estimated = torch.tensor([[-1.0, -0.5, 0.0, 1.0]], dtype=torch.float64), normal(20, 1, 4) / 3
    model = Normal(estimated, (1 - LinearSchedule(100).alpha_bar()[30]).sqrt())
    lower, upper = model.cdf(clean - 0.25), model.cdf(clean + 0.25)
    lower[0, 0], upper[0, 3] = 0, 1
    nll = decoder_nll(diffusion, clean, estimated, torch.tensor([30]), 5)
    torch.testing.assert_close(nll, -(upper - lower).log().sum(1), atol=1e-10, rtol=0)


@pytest.mark.parametrize("estimated", [-1.0, -0.3, 0.4, 1.0])
def test_decoder_keeps_its_digits_far_from_the_estimate_in_single_precision(estimated):
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]
    args = torch.full_like(levels, estimated), torch.ones(256, dtype=torch.int64)
    single = decoder_nll(GaussianDiffusion(LinearSchedule(1000)), levels.float(), args[0].float(), args[1], 256)
    double = decoder_nll(GaussianDiffusion(LinearSchedule(1000), dtype=torch.float64), levels, *args, 256)
    assert bool(torch.isfinite(single).all())
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)


# The bound -----------------------------------------------------------------------------------------------------

POINTS = torch.tensor([[-1.0, -1 / 3], [1 / 3, 1.0], [1.0, -1.0], [-1 / 3, 1 / 3]], dtype=torch.float64)
"""Four grey vectors of two dimensions and four levels: -log2 p is exactly 1 bit a dimension."""


def best_network(kind, schedule):
    """The exact posterior mean for data that are one of POINTS, said as a prediction."""
    alpha_bar = schedule.alpha_bar()[:, None]

    def predict(z, time):
        signal, noise_level = alpha_bar[time].sqrt(), (1 - alpha_bar[time]).sqrt()
        distance = (z[:, None] - signal[:, None] * POINTS).square().sum(2)
        clean = (-distance / (2 * noise_level**2)).softmax(1) @ POINTS
        noise = (z - signal * clean) / noise_level
        return {"noise": noise, "clean": clean, "velocity": signal * noise - noise_level * clean}[kind]

    return predict


def measured(kind: PredictionKind = "velocity", schedule=None, steps=None, count=400, predict=None):
    schedule = schedule or LinearSchedule(100)
    diffusion = GaussianDiffusion(schedule, kind, torch.float64)
    clean, generator = POINTS.repeat(count // 4, 1), torch.Generator().manual_seed(21)

    def draw_noise():
        return torch.randn(clean.shape, generator=generator, dtype=torch.float64)

    return bits_per_dim(diffusion, predict or best_network(kind, schedule), clean, draw_noise, 4, steps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", [LinearSchedule(100), CosineSchedule(100)], ids=["linear", "cosine"])
def test_bits_of_the_best_network_bound_those_of_the_data(kind, schedule):
    bits = measured(kind, schedule, count=4000)["total"].mean()
    assert 1 <= float(bits) < 1.2


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
def test_fewer_steps_still_bound(steps):
    assert float(measured(steps=steps)["total"].mean()) >= 1


def test_all_steps_bound_more_tightly_than_a_tenth_of_them():
    assert float(measured()["total"].mean()) < float(measured(steps=10)["total"].mean()) - 0.5


def test_worse_network_costs_more_bits():
    best = best_network("velocity", LinearSchedule(100))
    worse = measured(predict=lambda z, time: best(z, time) + 0.3)
    assert float(worse["total"].mean()) > float(measured()["total"].mean()) + 0.1


@pytest.mark.parametrize("steps", [0, 101])
def test_bits_per_dim_refuses_steps_the_schedule_has_not(steps):
    with pytest.raises(ValueError, match="steps"):
        measured(steps=steps, count=4)


# Its terms -----------------------------------------------------------------------------------------------------


def test_terms_add_up_to_the_total():
    bits = measured(steps=10)
    assert set(bits) == {"prior", "diffusion", "decoder", "total"}
    torch.testing.assert_close(bits["prior"] + bits["diffusion"] + bits["decoder"], bits["total"])


def test_prior_term_is_in_bits_per_dimension():
    alpha_bar = float(LinearSchedule(100).alpha_bar()[-1])
    square = alpha_bar * POINTS.square().sum(1)
    nats = 0.5 * (2 * (1 - alpha_bar) + square - 2 - 2 * math.log(1 - alpha_bar))
    torch.testing.assert_close(measured(steps=1, count=4)["prior"], nats / (2 * math.log(2)), atol=1e-12, rtol=0)


def test_diffusion_term_is_the_weighted_error_of_the_clean_state():
    """L_{t-1} = (snr_s - snr_t) / 2 ||z_0 - estimate||^2 when both have the posterior variance (derived)."""
    alpha_bar, noise = LinearSchedule(100).alpha_bar(), normal(22, 4, 2)
    snr = alpha_bar / (1 - alpha_bar)
    diffusion = GaussianDiffusion(LinearSchedule(100), "clean", torch.float64)
    bits = bits_per_dim(diffusion, lambda z, time: z.tanh(), POINTS, lambda: noise, 4, 4)["diffusion"]
    expected = torch.zeros(4, dtype=torch.float64)
    for t, s in ((100, 75), (75, 50), (50, 25)):
        error = POINTS - (alpha_bar[t].sqrt() * POINTS + (1 - alpha_bar[t]).sqrt() * noise).tanh()
        expected += (snr[s] - snr[t]) / 2 * error.square().sum(1)
    torch.testing.assert_close(bits, expected / (2 * math.log(2)), atol=0, rtol=1e-8)
