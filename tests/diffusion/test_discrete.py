"""Mask-and-replace kernels against transition matrices and the public code's log-space routine (arXiv 2111.14822)."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from mmdiffusion.diffusion import MaskReplaceDiffusion, ReleasedSchedule
from mmdiffusion.seeding import SampleNoise
from tests.diffusion.discrete_oracles import (
    SCHEDULES,
    TOLERANCE,
    between,
    codes,
    every_token,
    logits,
    one_step_matrices,
    pairs,
    posterior,
    process,
    public_reverse,
    times,
    uniform,
)

K = 4
MASK = K
NAMES = list(SCHEDULES)


def toy():
    return process("toy", 3)


def exactly(values):
    return pytest.approx(np.array(values), abs=6e-7)


# Posterior and reverse kernel ----------------------------------------------------------------------------------


def test_golden_posterior():
    probs = toy().posterior(torch.tensor([[3, 1, 0]]), torch.tensor([[0, 0, 0]]), times(3, 1), times(2, 1))[0]
    assert probs[0].numpy() == exactly([0.419753, 0.012346, 0.012346, 0.555556])
    assert probs[1].numpy() == exactly([0.400673, 0.587542, 0.011785, 0])
    assert probs[2].numpy() == exactly([0.998822, 0.000589, 0.000589, 0])


def test_golden_reverse_kernel():
    log_probs = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log().expand(1, 3, 3)
    probs = toy().reverse(log_probs, torch.tensor([[3, 1, 0]]), times(3, 1), times(2, 1))[0].exp()
    assert probs[0].numpy() == exactly([0.297531, 0.093827, 0.053086, 0.555556])
    assert probs[1].numpy() == exactly([0.281768, 0.669798, 0.048434, 0])
    assert probs[2].numpy() == exactly([0.875438, 0.081726, 0.042837, 0])


@pytest.mark.parametrize("name", NAMES)
def test_rates_between_any_two_steps_are_the_product_of_the_steps(name):
    matrices = one_step_matrices(SCHEDULES[name], K)
    for t, s in pairs(len(matrices)):
        rates = process(name, K).rates(times(t, 1), times(s, 1), 0)
        alpha, beta, gamma = float(rates.alpha), float(rates.beta), float(rates.gamma)
        kernel = between(matrices, s, t)
        assert kernel[0, :2] == pytest.approx([alpha + beta, beta], abs=1e-14, rel=1e-6)
        assert kernel[-1, 0] == pytest.approx(gamma, abs=1e-12)
        assert alpha + K * beta + gamma == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_posterior_is_bayes_rule_for_every_stride(name):
    matrices, (noisy, clean) = one_step_matrices(SCHEDULES[name], K), every_token(K)
    for t, s in pairs(len(matrices)):
        probs = process(name, K).posterior(noisy, clean, times(t, 1), times(s, 1))
        expected = posterior(matrices, s, t).reshape(1, -1, K + 1)
        np.testing.assert_allclose(probs.numpy(), expected, atol=TOLERANCE[name], rtol=0)
        np.testing.assert_allclose(probs.sum(-1).numpy(), 1, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_posterior_of_a_visible_token_has_no_mask_and_of_a_masked_one_the_ratio(name):
    schedule, (noisy, clean) = SCHEDULES[name], every_token(K)
    gamma_bar = schedule.mask()
    for t, s in pairs(schedule.num_steps):
        mask = process(name, K).posterior(noisy, clean, times(t, 1), times(s, 1))[..., -1]
        assert bool((mask[noisy != MASK] == 0).all())
        np.testing.assert_allclose(mask[noisy == MASK].numpy(), float(gamma_bar[s] / gamma_bar[t]), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_posterior_averaged_over_x_t_is_the_earlier_marginal(name):
    """Sum over x_t of q(x_t | x_0) q(x_s | x_t, x_0) = q(x_s | x_0)."""
    matrices, (noisy, clean) = one_step_matrices(SCHEDULES[name], K), every_token(K)
    for t, s in pairs(len(matrices)):
        evidence = between(matrices, 0, t)[noisy, clean][0]
        probs = process(name, K).posterior(noisy, clean, times(t, 1), times(s, 1))[0].numpy()
        joint = (probs * evidence[:, None]).reshape(K + 1, K, K + 1)
        np.testing.assert_allclose(joint.sum(0), between(matrices, 0, s).T[:-1], atol=max(1e-10, TOLERANCE[name]))


@pytest.mark.parametrize("name", NAMES)
def test_posterior_of_the_clean_state_is_the_clean_token(name):
    noisy, clean = every_token(K)
    for t in range(1, SCHEDULES[name].num_steps + 1):
        probs = process(name, K).posterior(noisy, clean, times(t, 1), times(0, 1))
        expected = torch.nn.functional.one_hot(clean, K + 1).double()
        torch.testing.assert_close(probs, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_reverse_is_the_public_log_space_routine(name):
    schedule = SCHEDULES[name]
    noisy = torch.arange(K + 1)[None]
    log_probs = logits(1, K + 1, K).log_softmax(-1)
    for t in range(1, schedule.num_steps + 1):
        found = process(name, K).reverse(log_probs, noisy, times(t, 1), times(t - 1, 1))[0].exp()
        for state in range(K + 1):
            expected = np.exp(public_reverse(schedule, K, log_probs[0, state], state, t))
            np.testing.assert_allclose(found[state].numpy(), expected, atol=TOLERANCE[name], rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_reverse_is_the_posterior_averaged_over_the_prediction(name):
    diffusion, noisy = process(name, K), torch.arange(K + 1).repeat(2, 1)
    log_probs = logits(2, K + 1, K, seed=1).log_softmax(-1)
    every_clean = torch.arange(K)[None, :, None].expand(2, K, K + 1)
    for t, s in pairs(diffusion.num_steps):
        time, target = times(t, 2), times(s, 2)
        probs = diffusion.posterior(noisy[:, None].expand(2, K, K + 1), every_clean, time, target)
        expected = torch.einsum("blk,bkls->bls", log_probs.exp(), probs)
        found = diffusion.reverse(log_probs, noisy, time, target).exp()
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_reverse_to_the_clean_state_is_the_prediction(name):
    diffusion, noisy = process(name, K), torch.arange(K + 1)[None]
    log_probs = logits(1, K + 1, K, seed=2).log_softmax(-1)
    for t in range(1, diffusion.num_steps + 1):
        found = diffusion.reverse(log_probs, noisy, times(t, 1), times(0, 1)).exp()
        torch.testing.assert_close(found[..., :-1], log_probs.exp(), atol=1e-12, rtol=0)
        assert bool((found[..., -1] == 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_reverse_of_a_certain_prediction_is_the_posterior(name):
    diffusion, (noisy, clean) = process(name, K), every_token(K)
    certain = torch.nn.functional.one_hot(clean, K).double().log()
    for t, s in pairs(diffusion.num_steps):
        if s > 0:
            expected = diffusion.posterior(noisy, clean, times(t, 1), times(s, 1))
            found = diffusion.reverse(certain, noisy, times(t, 1), times(s, 1)).exp()
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_every_sample_has_its_own_steps():
    diffusion, noisy, clean = process("toy", K), codes(K + 1, 3, 6), codes(K, 3, 6, seed=1)
    log_probs = logits(3, 6, K).log_softmax(-1)
    time, target = torch.tensor([5, 1, 3]), torch.tensor([2, 0, 2])
    together = diffusion.posterior(noisy, clean, time, target), diffusion.reverse(log_probs, noisy, time, target)
    for i in range(3):
        one = slice(i, i + 1)
        assert torch.equal(together[0][one], diffusion.posterior(noisy[one], clean[one], time[one], target[one]))
        assert torch.equal(together[1][one], diffusion.reverse(log_probs[one], noisy[one], time[one], target[one]))


def test_reverse_in_float32_at_the_public_size():
    num_codes, length = 2887, 16
    diffusion = MaskReplaceDiffusion(ReleasedSchedule(80), num_codes)
    noisy = codes(num_codes, 2, length)
    noisy[:, ::2] = num_codes
    log_probs = (
        logits(2, length, num_codes, scale=3)
        .scatter_add(2, noisy[..., None] % num_codes, torch.full((2, length, 1), 25.0).double())
        .log_softmax(-1)
    )
    time, target = torch.tensor([40, 80]), torch.tensor([39, 20])
    exact = diffusion.reverse(log_probs, noisy, time, target)
    single = diffusion.reverse(log_probs.float(), noisy, time, target)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, atol=2e-5, rtol=2e-6)
    torch.testing.assert_close(single.double().exp().sum(-1), torch.ones(2, length).double(), atol=1e-5, rtol=0)


# Forward process and prior -------------------------------------------------------------------------------------


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


# Draws ---------------------------------------------------------------------------------------------------------


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


# Mistakes and precision ----------------------------------------------------------------------------------------


def call(method, *, clean=0, noisy=0, time=3, target=2, classes=3):
    diffusion, shape = toy(), (1, 2)
    clean, noisy = torch.full(shape, clean), torch.full(shape, noisy)
    time, target, log_probs = times(time, 1), times(target, 1), torch.zeros(1, 2, classes).log_softmax(-1)
    return {
        "corrupt": lambda: diffusion.corrupt(clean, time, torch.zeros(1, 2, 2)),
        "posterior": lambda: diffusion.posterior(noisy, clean, time, target),
        "posterior_draw": lambda: diffusion.posterior_draw(noisy, clean, time, target, torch.zeros(1, 2, 2)),
        "reverse": lambda: diffusion.reverse(log_probs, noisy, time, target),
        "divergence": lambda: diffusion.divergence(log_probs, noisy, clean[:, None], time, target),
        "step": lambda: diffusion.step(log_probs, noisy, time, target, torch.zeros(1, 3, 2)),
    }[method]()


BAD = [
    ({"clean": 3}, "clean tokens run from 3 to 3: expected 0 to 2", {"reverse", "step"}),
    ({"clean": -1}, "clean tokens run from -1 to -1: expected 0 to 2", {"reverse", "step"}),
    ({"noisy": 4}, "noisy tokens run from 4 to 4: expected 0 to 3", {"corrupt"}),
    ({"time": 0}, r"time is \[0\]: expected 1 to 5", set()),
    ({"time": 6}, r"time is \[6\]: expected 1 to 5", set()),
    ({"target": 3}, r"target is \[3\] at time \[3\]: expected 0 to time - 1", {"corrupt"}),
    ({"target": -1}, r"target is \[-1\] at time \[3\]", {"corrupt"}),
    ({"classes": 4}, "log_probs has 4 classes: expected num_codes, 3", {"corrupt", "posterior", "posterior_draw"}),
]


@pytest.mark.parametrize("method", ["corrupt", "posterior", "posterior_draw", "reverse", "divergence", "step"])
@pytest.mark.parametrize(("mistake", "message", "unconcerned"), BAD)
def test_mistakes_are_named(method, mistake, message, unconcerned):
    if method in unconcerned:
        call(method, **mistake)
        return
    with pytest.raises(ValueError, match=message):
        call(method, **mistake)


@pytest.mark.parametrize("steps", [0, 6])
def test_too_many_or_no_strides_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps is {steps}: expected 1 to 5"):
        toy().step_times(steps)


def test_autocast_changes_nothing():
    diffusion, noisy, clean = process("toy", K), codes(K + 1, 2, 8), codes(K, 2, 8)
    log_probs, time, target = logits(2, 8, K).float().log_softmax(-1), times(4, 2), times(3, 2)

    def everything():
        return (
            diffusion.reverse(log_probs, noisy, time, target),
            *diffusion.divergence(log_probs, noisy, clean[:, None], time, target),
            diffusion.step(log_probs, noisy, time, target, uniform(2, 3, 8)),
        )

    outside = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = everything()
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(outside, inside, strict=True))


def test_bfloat16_predictions_are_widened():
    diffusion, noisy, clean = process("released", K), codes(K + 1, 2, 8), codes(K, 2, 1, 8)
    low, time, target = logits(2, 8, K).bfloat16(), times(4, 2), times(3, 2)
    for found, expected in zip(
        (diffusion.reverse(low, noisy, time, target), *diffusion.divergence(low, noisy, clean, time, target)),
        (
            diffusion.reverse(low.float(), noisy, time, target),
            *diffusion.divergence(low.float(), noisy, clean, time, target),
        ),
        strict=True,
    ):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_tables_keep_their_precision_and_stay_out_of_checkpoints():
    diffusion, exact = toy(), toy()
    diffusion.to(torch.bfloat16)
    for name, table in exact.named_buffers():
        assert torch.equal(diffusion.get_buffer(name), table)
        assert diffusion.get_buffer(name).dtype == torch.float64
    assert not diffusion.state_dict()
    assert str(diffusion) == "MaskReplaceDiffusion(num_steps=5, num_codes=3)"
    assert diffusion.to("meta").alpha_bar.device.type == "meta"
