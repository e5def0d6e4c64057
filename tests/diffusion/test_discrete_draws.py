"""What mask-and-replace diffusion draws, by frequencies: noisy tokens, the prior, steps back (arXiv 2111.14822)."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from mmdiffusion.diffusion import MaskReplaceDiffusion, ReleasedSchedule
from mmdiffusion.seeding import SampleNoise
from tests.diffusion.discrete_oracles import (
    NAMES,
    SCHEDULES,
    K,
    between,
    codes,
    every_token,
    logits,
    one_step_matrices,
    pairs,
    process,
    times,
    uniform,
)


def frequencies(tokens, num_states=K + 1):
    return torch.bincount(tokens.flatten(), minlength=num_states).numpy()


def fits(tokens, probs):
    """Whether draws pass the chi-square test; states expected less than five times may turn up twenty times in all."""
    drawn, probs = frequencies(tokens), np.asarray(probs)
    likely = probs * drawn.sum() >= 5
    share = probs[likely] / probs[likely].sum()
    pvalue = chisquare(drawn[likely], drawn[likely].sum() * share).pvalue if likely.sum() > 1 else 1
    return pvalue > 1e-4 and drawn[~likely].sum() <= 20


def test_the_fit_sees_a_shift_of_one_percent():
    assert fits(codes(K + 1, 40_000), np.full(K + 1, 1 / (K + 1)))
    assert not fits(codes(K + 1, 40_000), np.array([0.21, 0.19, 0.2, 0.2, 0.2]))


# Forward process and prior -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["toy", "mask_and_replace"])
def test_corrupt_has_the_frequencies_of_the_cumulative_kernel(name):
    size, matrices = 40_000, one_step_matrices(SCHEDULES[name], K)
    for t in (1, 3, len(matrices)):
        noisy = process(name, K).corrupt(torch.full((1, size), 2), times(t, 1), uniform(1, 2, size, seed=t))
        assert fits(noisy, between(matrices, 0, t)[:, 2])


def test_corrupt_reaches_a_replacement_of_one_in_a_million():
    """Uniform numbers 1e-9 apart from 0 on: exactly K beta_bar = 1e-6 of them replace, the next 9e-6 mask."""
    events = (torch.arange(20_000).double() + 0.5) * 1e-9
    noise = torch.stack([events, uniform(20_000)])[None]
    clean = torch.full((1, 20_000), 2886)
    noisy = MaskReplaceDiffusion(ReleasedSchedule(80), 2887).corrupt(clean, times(1, 1), noise)[0]
    assert bool((noisy[:1000] < 2887).all())
    assert len(noisy[:1000].unique()) > 800
    assert bool((noisy[1000:10_000] == 2887).all())
    assert bool((noisy[10_000:] == 2886).all())


def test_replaced_codes_are_uniform_up_to_the_last():
    """The code follows the second uniform number in equal steps; the largest float below 1 gives the last code."""
    events, codes_ = torch.zeros(1, 1, 900), (torch.arange(900) / 900)[None, None]
    noisy = process("toy", 9).corrupt(torch.zeros(1, 900).long(), times(5, 1), torch.cat([events, codes_], 1))
    assert frequencies(noisy, 10)[:9] == pytest.approx(np.full(9, 100), abs=1)
    largest = torch.tensor([[[0.0], [1 - 2**-53]]], dtype=torch.float64)
    assert int(process("toy", 9).corrupt(torch.zeros(1, 1).long(), times(5, 1), largest)) == 8


def test_prior_is_what_is_left_of_any_data_at_the_last_step():
    diffusion, size = process("mask_and_replace", K), 40_000
    expected = between(one_step_matrices(SCHEDULES["mask_and_replace"], K), 0, 6)[:, 1]
    np.testing.assert_allclose(diffusion.prior_probs().numpy(), expected, atol=1e-5)
    assert float(diffusion.prior_probs().sum()) == pytest.approx(1, abs=1e-12)
    drawn = diffusion.prior(uniform(1, 2, size, seed=3))
    assert fits(drawn, diffusion.prior_probs())


@pytest.mark.parametrize("name", NAMES)
def test_prior_kl_is_the_sum_over_states(name):
    diffusion, matrices = process(name, K), one_step_matrices(SCHEDULES[name], K)
    end = between(matrices, 0, len(matrices))[:, 0]
    expected = (end * np.log(end / diffusion.prior_probs().numpy())).sum()
    assert float(diffusion.prior_kl()) == pytest.approx(expected, abs=1e-9)


# Steps back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["toy", "mask_and_replace"])
@pytest.mark.parametrize(("t", "s"), [(4, 3), (5, 2), (3, 0)])
def test_posterior_draw_has_the_frequencies_of_the_posterior(name, t, s):
    size, diffusion, (every_noisy, every_clean) = 20_000, process(name, K), every_token(K)
    time, target = times(t, 1), times(s, 1)
    probs = diffusion.posterior(every_noisy, every_clean, time, target)[0]
    for i, (noisy, clean) in enumerate(zip(every_noisy[0], every_clean[0], strict=True)):
        tokens = noisy.expand(1, size), clean.expand(1, size)
        assert fits(diffusion.posterior_draw(*tokens, time, target, uniform(1, 2, size, seed=i)), probs[i])


@pytest.mark.parametrize("name", ["toy", "released"])
def test_step_has_the_frequencies_of_the_reverse_kernel(name):
    size, diffusion, time, target = 40_000, process(name, K), times(4, 1), times(2, 1)
    for state in range(K + 1):
        log_probs = logits(1, 1, K, seed=state).log_softmax(-1)
        noisy = torch.full((1, size), state)
        drawn = diffusion.step(log_probs.expand(1, size, K), noisy, time, target, uniform(1, 3, size, seed=9 + state))
        probs = diffusion.reverse(log_probs, noisy[:, :1], time, target)[0, 0].exp()
        assert fits(drawn, probs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("edge", [0.0, 1 - 2**-24, 1 - 2**-53])
def test_step_never_picks_an_impossible_state(name, edge):
    """At both ends of the uniform numbers the state drawn has a probability above 0."""
    diffusion, noisy = process(name, K), torch.arange(K + 1)[None]
    log_probs = logits(1, K + 1, K, seed=4).index_fill(2, torch.tensor([0, K - 1]), float("-inf")).log_softmax(-1)
    for t, s in pairs(diffusion.num_steps):
        time, target = times(t, 1), times(s, 1)
        drawn = diffusion.step(log_probs, noisy, time, target, torch.full((1, 3, K + 1), edge, dtype=torch.float64))
        probs = sum(
            log_probs.exp()[0, :, k, None] * diffusion.posterior(noisy, torch.full_like(noisy, k), time, target)[0]
            for k in range(K)
        )
        assert bool((probs.gather(1, drawn[0, :, None]) > 0).all())


def test_draws_depend_on_the_sample_alone():
    diffusion = process("mask_and_replace", K)
    log_probs = logits(3, 50, K).float().log_softmax(-1)
    clean, time, target = codes(K, 3, 50), torch.tensor([6, 3, 5]), torch.tensor([4, 2, 0])
    noise = SampleNoise(0, [7, 1, 4])
    first, second, third = noise.uniform((2, 50)), noise.uniform((3, 50)), noise.uniform((2, 50))
    noisy = diffusion.corrupt(clean, time, first)
    moved, prior = diffusion.step(log_probs, noisy, time, target, second), diffusion.prior(third)
    for i, index in enumerate([7, 1, 4]):
        alone, one = SampleNoise(0, [index]), slice(i, i + 1)
        assert torch.equal(diffusion.corrupt(clean[one], time[one], alone.uniform((2, 50))), noisy[one])
        step = diffusion.step(log_probs[one], noisy[one], time[one], target[one], alone.uniform((3, 50)))
        assert torch.equal(step, moved[one])
        assert torch.equal(diffusion.prior(alone.uniform((2, 50))), prior[one])
