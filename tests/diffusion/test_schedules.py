"""Noise and aggregation schedules against DDPM (arXiv 2006.11239) and MT-Diffusion (arXiv 2407.17571)."""

import numpy as np
import pytest
import torch

from mmdiffusion.diffusion import (
    AggregatedDiffusion,
    CosineSchedule,
    LinearDrift,
    LinearSchedule,
    NoDrift,
    OneshotDrift,
    SaturatingDrift,
    WeightedDrift,
)
from mmdiffusion.diffusion.bound import prior_kl
from mmdiffusion.diffusion.schedules import drift_from_weights, weights_from_drift

SCHEDULES = [LinearSchedule, CosineSchedule]
SHARES = {
    "linear": (LinearDrift(0.7), lambda u: 0.7 * u),
    "saturating": (SaturatingDrift(0.6, 0.1), lambda u: 0.6 * (1 - np.exp(-u / 0.1))),
    "oneshot": (OneshotDrift(0.9), lambda u: 0.9 * (u > 0)),
    "none": (NoDrift(), lambda u: 0 * u),
}
"""Each drift of bounded rho, and rho as a function of t/T."""


@pytest.fixture(params=SCHEDULES, ids=["linear_schedule", "cosine_schedule"])
def alpha_bar(request):
    return request.param(200).alpha_bar()


def closed_sum(alpha_bar, weights):
    """alpha_tilde_t = sum_{s=1..t} w_s sqrt(alpha_bar_t / alpha_bar_{s-1}), the recursion of Theorem 2 solved."""
    alpha_bar, weights = np.asarray(alpha_bar), np.asarray(weights)
    return np.array(
        [
            sum(weights[s] * np.sqrt(alpha_bar[t] / alpha_bar[s - 1]) for s in range(1, t + 1))
            for t in range(len(alpha_bar))
        ]
    )


# Noise schedules -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [50, 1000, 4000])
def test_linear_schedule_is_the_product_of_one_minus_beta(num_steps):
    beta = np.linspace(1e-4, 0.02, num_steps) * 1000 / num_steps
    expected = np.concatenate([[1.0], np.cumprod(1 - beta)])
    np.testing.assert_allclose(LinearSchedule(num_steps).alpha_bar().numpy(), expected, rtol=1e-10)


def test_cosine_schedule_is_a_squared_cosine_until_its_beta_is_clipped():
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(CosineSchedule(1000).alpha_bar().numpy()[:-1], (f / f[0])[:-1], rtol=1e-9)


def test_cosine_schedule_clips_the_last_beta():
    alpha_bar = CosineSchedule(1000).alpha_bar()
    assert 1 - alpha_bar[-1] / alpha_bar[-2] == pytest.approx(0.999, rel=1e-12)


@pytest.mark.parametrize(("schedule", "expected"), [(LinearSchedule, 6.35e-3), (CosineSchedule, 4.93e-5)])
def test_signal_left_at_the_last_step(schedule, expected):
    assert float(schedule(1000).alpha_bar()[-1].sqrt()) == pytest.approx(expected, rel=1e-2)


def test_alpha_bar_starts_at_exactly_one_and_falls(alpha_bar):
    assert alpha_bar.dtype == torch.float64
    assert len(alpha_bar) == 201
    assert float(alpha_bar[0]) == 1
    assert bool((alpha_bar.diff() < 0).all())
    assert float(alpha_bar[-1]) > 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_shortest_schedule_keeps_some_signal(schedule):
    assert bool((schedule(schedule.min_steps).alpha_bar() > 0).all())


@pytest.mark.parametrize(("schedule", "num_steps"), [(LinearSchedule, 20), (LinearSchedule, 0), (CosineSchedule, 0)])
def test_too_short_a_schedule_is_refused_by_name(schedule, num_steps):
    with pytest.raises(ValueError, match="num_steps"):
        schedule(num_steps)


# Aggregation schedules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHARES)
def test_drift_is_rho_times_the_signal(alpha_bar, name):
    schedule, rho = SHARES[name]
    expected = rho(np.arange(201) / 200) * np.sqrt(alpha_bar.numpy())
    np.testing.assert_allclose(schedule.drift(alpha_bar).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("name", SHARES)
def test_weights_are_the_steps_of_rho_times_the_signal_before(alpha_bar, name):
    schedule, rho = SHARES[name]
    expected = np.diff(rho(np.arange(201) / 200)) * np.sqrt(alpha_bar.numpy()[:-1])
    weights = weights_from_drift(alpha_bar, schedule.drift(alpha_bar)).numpy()
    assert weights[0] == 0
    np.testing.assert_allclose(weights[1:], expected, atol=1e-12)


@pytest.mark.parametrize("name", SHARES)
def test_closed_sum_of_the_weights_is_the_drift(alpha_bar, name):
    drift = SHARES[name][0].drift(alpha_bar)
    np.testing.assert_allclose(closed_sum(alpha_bar, weights_from_drift(alpha_bar, drift)), drift.numpy(), atol=1e-10)


def test_recursion_is_the_closed_sum_for_random_weights(alpha_bar):
    weights = torch.randn(201, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = closed_sum(alpha_bar, weights)
    np.testing.assert_allclose(drift_from_weights(alpha_bar, weights).numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(WeightedDrift(weights[1:].tolist()).drift(alpha_bar).numpy(), expected, atol=1e-10)


def test_one_weight_stands_for_every_step(alpha_bar):
    expected = closed_sum(alpha_bar, np.full(201, 0.02))
    np.testing.assert_allclose(WeightedDrift(0.02).drift(alpha_bar).numpy(), expected, atol=1e-10)


def test_weights_come_back_from_their_drift(alpha_bar):
    weights = torch.randn(201, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights[0] = 0
    back = weights_from_drift(alpha_bar, drift_from_weights(alpha_bar, weights))
    torch.testing.assert_close(back, weights, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", SHARES)
def test_weights_of_kept_steps_give_the_same_drift_at_kept_steps(alpha_bar, name):
    kept = torch.tensor([0, 1, 7, 50, 51, 120, 200])
    drift = SHARES[name][0].drift(alpha_bar)
    weights = weights_from_drift(alpha_bar[kept], drift[kept])
    np.testing.assert_allclose(closed_sum(alpha_bar[kept], weights), drift[kept].numpy(), atol=1e-12)


def test_reusing_the_full_weights_at_kept_steps_is_wrong(alpha_bar):
    kept = torch.arange(0, 201, 10)
    drift = LinearDrift(0.7).drift(alpha_bar)
    weights = weights_from_drift(alpha_bar, drift)
    assert np.abs(closed_sum(alpha_bar[kept], weights[kept]) - drift[kept].numpy()).max() > 0.1


@pytest.mark.parametrize("name", SHARES)
def test_drift_of_bounded_rho_does_not_reach_the_prior(name):
    for schedule in SCHEDULES:
        assert abs(float(SHARES[name][0].drift(schedule(1000).alpha_bar())[-1])) < 0.01


def test_oneshot_drift_leaves_the_schedule_as_it_was(alpha_bar):
    before = alpha_bar.clone()
    OneshotDrift(0.9).drift(alpha_bar)
    assert torch.equal(alpha_bar, before)


# The prior -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "last"), [(1.0, 113.8), (0.01, 1.138)])
def test_constant_weight_breaks_the_prior_and_warns(weight, last):
    with pytest.warns(UserWarning, match=r"aggregation of 'x'.*prior"):
        diffusion = AggregatedDiffusion(LinearSchedule(1000), {"x": WeightedDrift(weight)})
    assert float(diffusion.drift_table("x")[-1]) == pytest.approx(last, rel=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("drift", [LinearDrift(1.0), SaturatingDrift(1.0), OneshotDrift(1.0), NoDrift()])
def test_strength_one_costs_next_to_nothing_at_the_prior(schedule, drift):
    diffusion = AggregatedDiffusion(schedule(1000), {"x": drift}, dtype=torch.float64)
    clean = torch.ones(2, 3, dtype=torch.float64)
    mean = diffusion.corrupt(clean, torch.tensor([1000, 1000]), torch.zeros_like(clean), {"x": clean})
    assert bool((prior_kl(diffusion, mean) / 3 < 1e-3).all())


# Refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time_scale", [0.0, -0.1])
def test_saturating_drift_refuses_a_time_scale_that_is_not_positive(time_scale):
    with pytest.raises(ValueError, match="time_scale"):
        SaturatingDrift(0.5, time_scale)


@pytest.mark.parametrize("length", [0, 199, 201])
def test_weighted_drift_refuses_a_list_of_another_length(alpha_bar, length):
    with pytest.raises(ValueError, match="weights"):
        WeightedDrift([0.1] * length).drift(alpha_bar)
