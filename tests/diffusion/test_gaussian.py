"""Plain diffusion against DDPM (arXiv 2006.11239) and DDIM (arXiv 2010.02502) written by hand in float64."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from mmdiffusion.diffusion import GaussianDiffusion, LinearSchedule
from tests.diffusion.gaussian_oracles import KINDS, SCHEDULES, TIME, T, normal, prediction_of


def bayes(clean, noisy, abar_s, abar_t):
    """q(z_s | z_t, z_0) by conditioning a Gaussian pair: z_s given z_0, then z_t = sqrt(a) z_s + sqrt(1 - a) n."""
    alpha = abar_t / abar_s
    covariance = alpha.sqrt() * (1 - abar_s)
    gain = covariance / (alpha * (1 - abar_s) + 1 - alpha)
    return abar_s.sqrt() * clean + gain * (noisy - abar_t.sqrt() * clean), (1 - abar_s) - gain * covariance


@pytest.fixture
def abar(schedule):
    """alpha_bar as a column, so that rows of states are steps."""
    return schedule.alpha_bar()[:, None]


@pytest.fixture
def draw():
    """z_0 and noise, one row for each step 1..T."""
    return normal(0, T, 3), normal(1, T, 3)


# Forward process -----------------------------------------------------------------------------------------------


def test_corrupt_is_ho_eq_4(schedule, abar, draw):
    clean, noise = draw
    noisy = GaussianDiffusion(schedule, dtype=torch.float64).corrupt(clean, TIME, noise)
    torch.testing.assert_close(noisy, abar[TIME].sqrt() * clean + (1 - abar[TIME]).sqrt() * noise, atol=1e-13, rtol=0)


def test_corrupt_at_time_zero_returns_the_clean_state(schedule, draw):
    clean, noise = draw
    assert torch.equal(GaussianDiffusion(schedule).corrupt(clean, torch.zeros_like(TIME), noise), clean)


def test_states_of_any_rank_agree_with_flat_ones(schedule):
    diffusion = GaussianDiffusion(schedule, dtype=torch.float64)
    clean, noisy, time = normal(2, 4, 2, 3, 5), normal(3, 4, 2, 3, 5), torch.tensor([1, 5, 30, T])
    mean, variance = diffusion.posterior(noisy, clean, time, time - 1)
    flat_mean, flat_variance = diffusion.posterior(noisy.flatten(1), clean.flatten(1), time, time - 1)
    assert torch.equal(mean.flatten(1), flat_mean)
    assert torch.equal(variance.flatten(), flat_variance.flatten())


@pytest.mark.parametrize("stride", [1, 7, T])
def test_transition_is_the_ratio_of_signals(schedule, abar, stride):
    time = torch.arange(stride, T + 1)
    alpha, beta = GaussianDiffusion(schedule, dtype=torch.float64).transition(
        time, time - stride, normal(0, len(time), 1)
    )
    torch.testing.assert_close(alpha, abar[time] / abar[time - stride], atol=0, rtol=1e-10)
    torch.testing.assert_close(beta, 1 - abar[time] / abar[time - stride], atol=1e-12, rtol=0)


# Posterior -----------------------------------------------------------------------------------------------------


def test_posterior_is_ho_eq_7(schedule, abar, draw):
    clean, noisy = draw
    alpha, before, now = abar[1:] / abar[:-1], abar[:-1], abar[1:]
    expected = (before.sqrt() * (1 - alpha) * clean + alpha.sqrt() * (1 - before) * noisy) / (1 - now)
    mean, variance = GaussianDiffusion(schedule, dtype=torch.float64).posterior(noisy, clean, TIME, TIME - 1)
    torch.testing.assert_close(mean, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(variance, (1 - alpha) * (1 - before) / (1 - now), atol=1e-12, rtol=0)


@pytest.mark.parametrize("stride", [1, 2, 13, T])
def test_posterior_is_bayes_rule_for_any_stride(schedule, abar, stride):
    time = torch.arange(stride, T + 1)
    clean, noisy = normal(4, len(time), 3), normal(5, len(time), 3)
    mean, variance = GaussianDiffusion(schedule, dtype=torch.float64).posterior(noisy, clean, time, time - stride)
    expected, expected_variance = bayes(clean, noisy, abar[time - stride], abar[time])
    torch.testing.assert_close(mean, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(variance, expected_variance, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_posterior_variance_of_the_clean_state_is_exactly_zero(schedule, draw, dtype):
    clean, noisy = (x.to(dtype) for x in draw)
    _, variance = GaussianDiffusion(schedule, dtype=dtype).posterior(noisy, clean, TIME, torch.zeros_like(TIME))
    assert bool((variance == 0).all())


# Predictions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_target_is_the_perfect_prediction(schedule, abar, draw, kind):
    clean, noise = draw
    target = GaussianDiffusion(schedule, kind, torch.float64).target(clean, TIME, noise)
    torch.testing.assert_close(target, prediction_of(kind, abar[TIME], clean, noise), atol=1e-13, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_perfect_prediction_gives_back_clean_state_and_noise(schedule, abar, draw, kind):
    diffusion = GaussianDiffusion(schedule, kind, torch.float64)
    clean, noise = draw
    noisy = abar[TIME].sqrt() * clean + (1 - abar[TIME]).sqrt() * noise
    prediction = prediction_of(kind, abar[TIME], clean, noise)
    torch.testing.assert_close(diffusion.predict_x0(noisy, TIME, prediction), clean, atol=1e-10, rtol=0)
    torch.testing.assert_close(diffusion.predict_noise(noisy, TIME, prediction), noise, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_estimate_is_consistent_with_its_noisy_state(schedule, abar, draw, kind, clip):
    noisy, prediction = draw
    clean, noise, encodings = GaussianDiffusion(schedule, kind, torch.float64).estimate(noisy, TIME, prediction, clip)
    torch.testing.assert_close(abar[TIME].sqrt() * clean + (1 - abar[TIME]).sqrt() * noise, noisy, atol=1e-10, rtol=0)
    assert clip is None or float(clean.abs().max()) <= clip
    assert not encodings


@pytest.mark.parametrize("kind", KINDS)
def test_add_score_lowers_the_noise_by_the_gradient(schedule, abar, draw, kind):
    diffusion = GaussianDiffusion(schedule, kind, torch.float64)
    clean, noise = draw
    gradient, now = 0.1 * normal(6, T, 3), abar[TIME]
    noisy = now.sqrt() * clean + (1 - now).sqrt() * noise
    guided_noise = noise - (1 - now).sqrt() * gradient
    guided_clean = (noisy - (1 - now).sqrt() * guided_noise) / now.sqrt()
    guided = diffusion.add_score(prediction_of(kind, now, clean, noise), TIME, gradient)
    torch.testing.assert_close(guided, prediction_of(kind, now, guided_clean, guided_noise), atol=1e-9, rtol=1e-10)


# Samplers ------------------------------------------------------------------------------------------------------


def test_ddpm_step_is_algorithm_2_of_ddpm(schedule, abar, draw):
    noisy, prediction = draw
    noise, alpha, before, now = normal(7, T, 3), abar[1:] / abar[:-1], abar[:-1], abar[1:]
    mean = (noisy - (1 - alpha) / (1 - now).sqrt() * prediction) / alpha.sqrt()
    expected = mean + ((1 - alpha) * (1 - before) / (1 - now)).sqrt() * noise
    diffusion = GaussianDiffusion(schedule, "noise", torch.float64)
    step = diffusion.step(lambda z, t: prediction, noisy, TIME, TIME - 1, sampler="ddpm", noise=noise)
    torch.testing.assert_close(step, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("stride", [1, 7])
def test_ddim_step_is_song_eq_12(schedule, abar, stride):
    time = torch.arange(stride, T + 1)
    noisy, prediction, now, then = normal(8, len(time), 3), normal(9, len(time), 3), abar[time], abar[time - stride]
    clean = (noisy - (1 - now).sqrt() * prediction) / now.sqrt()
    diffusion = GaussianDiffusion(schedule, "noise", torch.float64)
    step = diffusion.step(lambda z, t: prediction, noisy, time, time - stride, sampler="ddim")
    torch.testing.assert_close(step, then.sqrt() * clean + (1 - then).sqrt() * prediction, atol=1e-10, rtol=1e-10)


def test_ddim_step_ignores_noise(schedule, draw):
    diffusion = GaussianDiffusion(schedule)
    noisy, noise = (x.float() for x in draw)
    plain = diffusion.step(lambda z, t: z.tanh(), noisy, TIME, TIME - 1, sampler="ddim")
    assert torch.equal(diffusion.step(lambda z, t: z.tanh(), noisy, TIME, TIME - 1, noise=noise), plain)


def test_heun_step_is_the_trapezoid_rule_in_scaled_coordinates(schedule, abar):
    """With u = z / sqrt(1 - alpha_bar) and v = sqrt(alpha_bar / (1 - alpha_bar)), du/dv is the clean estimate."""
    time, target = torch.arange(8, T + 1), torch.arange(1, T - 6)
    noisy, now, then = normal(10, len(time), 3), abar[time], abar[target]

    def predict(z, t):
        return (z * 0.3 + t[:, None] / T).tanh()

    u, dv = noisy / (1 - now).sqrt(), (then / (1 - then)).sqrt() - (now / (1 - now)).sqrt()
    first = predict(noisy, time)
    second = predict((1 - then).sqrt() * (u + dv * first), target)
    expected = (1 - then).sqrt() * (u + dv * (first + second) / 2)
    step = GaussianDiffusion(schedule, "clean", torch.float64).step(predict, noisy, time, target, sampler="heun")
    torch.testing.assert_close(step, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_heun_step_of_a_batch_is_the_step_of_each_sample(schedule, kind):
    """Also where one sample reaches the clean state, whose step is a DDIM step, and another does not."""
    diffusion = GaussianDiffusion(schedule, kind, torch.float64)
    noisy, time, target = normal(11, 2, 3), torch.tensor([10, 10]), torch.tensor([0, 5])

    def predict(z, t):
        return (z * 0.3 + t[:, None] / T).tanh()

    whole = diffusion.step(predict, noisy, time, target, sampler="heun")
    parts = [diffusion.step(predict, noisy[[i]], time[[i]], target[[i]], sampler="heun") for i in range(2)]
    torch.testing.assert_close(whole, torch.cat(parts), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sampler", "calls"), [("ddpm", 1), ("ddim", 1), ("heun", 2)])
def test_network_calls_a_step(schedule, kind, sampler, calls):
    seen = []

    def predict(z, t):
        seen.append(t.tolist())
        return z

    diffusion = GaussianDiffusion(schedule, kind, torch.float64)
    time = torch.tensor([9, 9])
    diffusion.step(predict, normal(0, 2, 3), time, time - 4, sampler=sampler, noise=normal(1, 2, 3))
    assert seen == [[9, 9], [5, 5]][:calls]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "heun"])
@pytest.mark.parametrize("steps", [1, 7, T])
def test_oracle_network_leads_to_its_clean_state(schedule, abar, kind, sampler, steps):
    diffusion = GaussianDiffusion(schedule, kind, torch.float64)
    clean, noisy = normal(12, 1, 3), normal(13, 1, 3)

    def oracle(z, t):
        return prediction_of(kind, abar[t], clean, (z - abar[t].sqrt() * clean) / (1 - abar[t]).sqrt())

    times = [torch.tensor([t]) for t in diffusion.step_times(steps)]
    for time, target in pairwise(times):
        noisy = diffusion.step(oracle, noisy, time, target, sampler=sampler, noise=torch.zeros_like(noisy))
    torch.testing.assert_close(noisy, clean, atol=1e-9, rtol=0)


@pytest.mark.parametrize("steps", [1, 7, 50, 999, 1000])
def test_step_times_fall_from_the_first_to_zero(steps):
    times = GaussianDiffusion(LinearSchedule(1000)).step_times(steps)
    assert (times[0], times[-1], len(times)) == (1000, 0, steps + 1)
    assert all(before > after for before, after in pairwise(times))
    strides = -np.diff(times)
    assert strides.max() - strides.min() <= 1


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_step_times_refuses_steps_the_schedule_has_not(steps):
    with pytest.raises(ValueError, match="steps"):
        GaussianDiffusion(LinearSchedule(1000)).step_times(steps)


# Precision and storage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("long_schedule", SCHEDULES)
def test_single_precision_corrupt_is_close(long_schedule):
    abar, time = long_schedule(1000).alpha_bar()[:, None], torch.arange(1, 1001)
    clean, noise = normal(14, 1000, 3), normal(15, 1000, 3)
    expected = abar[time].sqrt() * clean + (1 - abar[time]).sqrt() * noise
    noisy = GaussianDiffusion(long_schedule(1000)).corrupt(clean.float(), time, noise.float())
    assert float(((noisy - expected).norm(dim=1) / expected.norm(dim=1)).max()) < 1e-3


@pytest.mark.parametrize("long_schedule", SCHEDULES)
@pytest.mark.parametrize("stride", [1, 20])
def test_single_precision_posterior_is_close(long_schedule, stride):
    abar, time = long_schedule(1000).alpha_bar()[:, None], torch.arange(stride + 1, 1001)
    clean, noisy = normal(16, len(time), 3), normal(17, len(time), 3)
    expected, expected_variance = bayes(clean, noisy, abar[time - stride], abar[time])
    diffusion = GaussianDiffusion(long_schedule(1000))
    mean, variance = diffusion.posterior(noisy.float(), clean.float(), time, time - stride)
    assert float(((mean - expected).norm(dim=1) / expected.norm(dim=1)).max()) < 1e-3
    assert float((variance / expected_variance - 1).abs().max()) < 1e-3


def test_tables_stay_out_of_checkpoints(schedule):
    assert len(GaussianDiffusion(schedule).state_dict()) == 0


def test_tables_have_the_asked_precision(schedule):
    assert {x.dtype for x in GaussianDiffusion(schedule).buffers()} == {torch.float32}
    assert {x.dtype for x in GaussianDiffusion(schedule, dtype=torch.float64).buffers()} == {torch.float64}
