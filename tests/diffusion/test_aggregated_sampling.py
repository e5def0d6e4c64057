"""Samplers of aggregated diffusion under a network that knows the answer (MT-Diffusion, arXiv 2407.17571)."""

from itertools import pairwise

import pytest
import torch

from tests.diffusion.gaussian_oracles import (
    KINDS,
    SAMPLERS,
    TIME,
    T,
    bayes,
    close,
    column,
    form_a,
    form_c,
    normal,
    oracle,
)


@pytest.mark.parametrize("kind", KINDS)
def test_ddpm_step_of_an_oracle_has_the_posterior_mean(paper, kind):
    noisy, zero = paper.noisy(), torch.zeros(T, 3, dtype=torch.float64)
    predict = oracle(paper, kind, paper.clean, paper.encodings)
    step = paper.process(kind).step(predict, noisy, TIME, TIME - 1, sampler="ddpm", noise=zero)
    close(step, form_c(paper, noisy), atol=1e-9)


def test_ddpm_step_has_the_posterior_deviation(paper2):
    noisy, process = paper2.noisy(), paper2.process()
    predict = oracle(paper2, "noise", paper2.clean, paper2.encodings)
    steps = [
        process.step(predict, noisy, TIME, TIME - 1, sampler="ddpm", noise=torch.full_like(noisy, x))
        for x in (0.0, 1.0)
    ]
    _, variance = bayes(paper2, noisy, TIME, TIME - 1, paper2.encodings)
    close((steps[1] - steps[0]) ** 2, variance.expand(T, 3))


def test_adding_the_weights_in_place_of_subtracting_them_is_wrong(paper2):
    noisy = paper2.noisy()
    mean, _ = paper2.process().posterior(noisy, paper2.clean, TIME, TIME - 1, paper2.encodings)
    gap = (mean - form_c(paper2, noisy, sign=1)).abs().amax(1)
    assert float(gap.min()) > 1e-3
    close(gap, 2 * paper2.weighted(TIME).abs().amax(1), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_step_of_an_oracle_from_time_one_returns_the_clean_state(paper, kind, sampler):
    clean, encodings = paper.clean[:1], {name: e[:1] for name, e in paper.encodings.items()}
    predict, noise = oracle(paper, kind, clean, encodings), normal(44, 1, 3)
    step = paper.process(kind).step(predict, paper.noisy()[:1], column(1), column(0), sampler=sampler, noise=noise)
    close(step, clean, atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 6, 7, T])
def test_oracle_leads_to_its_clean_state_in_any_number_of_steps(paper2, sampler, steps):
    process, state = paper2.process("velocity"), normal(45, 1, 3)
    clean, encodings = paper2.clean[:1], {name: e[:1] for name, e in paper2.encodings.items()}
    predict = oracle(paper2, "velocity", clean, encodings)
    times = process.step_times(steps)
    for t, s in pairwise(times):
        state = process.step(predict, state, column(t), column(s), sampler=sampler, noise=torch.zeros_like(state))
    close(state, clean, atol=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("stride", [1, 9])
def test_strided_step_keeps_an_oracle_on_the_marginal(paper2, sampler, stride):
    """The mean of z_s over q(z_t) is that of Theorem 2 at s, which steps with w_t in place of the stride's w miss."""
    time = torch.arange(stride + 1, T + 1)
    clean, encodings = paper2.clean[: len(time)], {name: e[: len(time)] for name, e in paper2.encodings.items()}
    means = [paper2.abar[t].sqrt() * clean + paper2.drift(t, encodings) for t in (time, time - stride)]
    predict = oracle(paper2, "noise", clean, encodings)
    process, zero = paper2.process(), torch.zeros_like(clean)
    step = process.step(predict, means[0], time, time - stride, sampler=sampler, noise=zero)
    close(step, means[1], atol=1e-9)


@pytest.mark.parametrize("stride", [1, 7])
def test_ddim_step_is_song_eq_12_with_the_drift_at_the_target(paper2, stride):
    time = torch.arange(stride, T + 1)
    noisy, prediction, count = normal(46, len(time), 3), normal(47, len(time), 3), len(time)
    encodings = {name: e[:count] for name, e in paper2.encodings.items()}
    now, then = paper2.abar[time], paper2.abar[time - stride]
    clean = (noisy - paper2.drift(time, encodings) - (1 - now).sqrt() * prediction) / now.sqrt()
    expected = then.sqrt() * clean + paper2.drift(time - stride, encodings) + (1 - then).sqrt() * prediction
    step = paper2.process().step(lambda z, t: (prediction, encodings), noisy, time, time - stride, sampler="ddim")
    torch.testing.assert_close(step, expected, atol=1e-9, rtol=1e-10)


@pytest.mark.parametrize("stride", [1, 7])
def test_ddim_equation_with_the_posterior_variance_is_the_ancestral_mean(paper2, stride):
    time = torch.arange(stride, T + 1)
    noisy, count = normal(48, len(time), 3), len(time)
    clean, encodings = paper2.clean[:count], {name: e[:count] for name, e in paper2.encodings.items()}
    now, then = paper2.abar[time], paper2.abar[time - stride]
    noise = (noisy - now.sqrt() * clean - paper2.drift(time, encodings)) / (1 - now).sqrt()
    variance = (1 - now / then) * (1 - then) / (1 - now)
    expected = then.sqrt() * clean + paper2.drift(time - stride, encodings) + (1 - then - variance).sqrt() * noise
    mean, _ = paper2.process().posterior(noisy, clean, time, time - stride, encodings)
    close(mean, expected, atol=1e-9)


def test_ddim_step_is_deterministic(paper2):
    process, noisy = paper2.process(), paper2.noisy()

    def predict(z, time):
        return z.tanh(), {name: e + 0.1 * z for name, e in paper2.encodings.items()}

    steps = [process.step(predict, noisy, TIME, TIME - 1, noise=noise) for noise in (None, paper2.noise, None)]
    assert torch.equal(steps[0], steps[1])
    assert torch.equal(steps[0], steps[2])


# Clipping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clipping_leaves_large_encodings_alone(paper2, kind, sampler):
    """It acts on z_0, which lies inside, and not on z_0 + rho e, which does not."""
    time, process = TIME[10:], paper2.process(kind)
    clean, encodings = paper2.clean[10:].tanh(), {name: 20 * e[10:] for name, e in paper2.encodings.items()}
    noisy = paper2.abar[time].sqrt() * clean + paper2.drift(time, encodings)
    predict, zero = oracle(paper2, kind, clean, encodings), torch.zeros_like(clean)
    free, clipped = (
        process.step(predict, noisy, time, time - 3, sampler=sampler, noise=zero, clip=clip) for clip in (None, 1.0)
    )
    close(clipped, free, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_clipped_ddpm_step_is_the_posterior_of_the_clipped_clean_state(paper2, kind):
    noisy, zero = normal(49, T, 3), torch.zeros(T, 3, dtype=torch.float64)
    predict = oracle(paper2, kind, paper2.clean, paper2.encodings)
    assert float(paper2.clean.abs().max()) > 1
    step = paper2.process(kind).step(predict, noisy, TIME, TIME - 1, sampler="ddpm", noise=zero, clip=0.5)
    paper2.clean = paper2.clean.clamp(-0.5, 0.5)
    close(step, form_a(paper2, noisy), atol=1e-9)
