"""Mask-and-replace kernels against transition matrices and the public code's log-space routine (arXiv 2111.14822)."""

import numpy as np
import pytest
import torch

from tests.diffusion.discrete_oracles import (
    MASK,
    NAMES,
    SCHEDULES,
    TOLERANCE,
    K,
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
    toy,
)


def exactly(values):
    return pytest.approx(np.array(values), abs=6e-7)


# Posterior -----------------------------------------------------------------------------------------------------


def test_golden_posterior():
    probs = toy().posterior(torch.tensor([[3, 1, 0]]), torch.tensor([[0, 0, 0]]), times(3, 1), times(2, 1))[0]
    assert probs[0].numpy() == exactly([0.419753, 0.012346, 0.012346, 0.555556])
    assert probs[1].numpy() == exactly([0.400673, 0.587542, 0.011785, 0])
    assert probs[2].numpy() == exactly([0.998822, 0.000589, 0.000589, 0])


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


# Reverse kernel ------------------------------------------------------------------------------------------------


def test_golden_reverse_kernel():
    log_probs = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log().expand(1, 3, 3)
    probs = toy().reverse(log_probs, torch.tensor([[3, 1, 0]]), times(3, 1), times(2, 1))[0].exp()
    assert probs[0].numpy() == exactly([0.297531, 0.093827, 0.053086, 0.555556])
    assert probs[1].numpy() == exactly([0.281768, 0.669798, 0.048434, 0])
    assert probs[2].numpy() == exactly([0.875438, 0.081726, 0.042837, 0])


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


# Mistakes ------------------------------------------------------------------------------------------------------


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
