"""Gather-only KL and cross-entropy against the dense sum over the states, and what they cost (arXiv 2111.14822)."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmdiffusion.diffusion import MaskReplaceDiffusion, ReleasedSchedule, discrete_kl
from tests.diffusion.discrete_oracles import (
    NAMES,
    SCHEDULES,
    TOLERANCE,
    K,
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


def dense_kl(diffusion, log_probs, noisy, clean, time, target):
    """Sum over all states of q (log q - log p), for candidates (b m l)."""
    q = diffusion.posterior(noisy[:, None].expand_as(clean), clean, time, target)
    log_p = diffusion.reverse(log_probs, noisy, time, target)[:, None]
    return (torch.xlogy(q, q) - q * torch.where(q > 0, log_p, 0)).sum(-1)


# The number ----------------------------------------------------------------------------------------------------


def test_golden_kl():
    log_probs = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).log().expand(1, 2, 3)
    candidates = torch.tensor([[[0, 0], [1, 1], [2, 2]]])
    found = process("toy", 3).divergence(log_probs, torch.tensor([[3, 1]]), candidates, times(3, 1), times(2, 1))
    expected = [[0.101411, 0.047421], [0.571585, 0.392896], [0.803617, 0.732206]]
    np.testing.assert_allclose(found.kl[0].numpy(), expected, atol=6e-7)
    np.testing.assert_allclose(found.nll[0, :, 0].numpy(), -np.log([0.7, 0.2, 0.1]), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_kl_is_that_of_the_oracles(name):
    """The dense sum over states of Bayes' posterior against the public code's log-space routine."""
    schedule, log_probs = SCHEDULES[name], logits(K, seed=3).log_softmax(-1)
    matrices, (noisy, clean) = one_step_matrices(schedule, K), every_token(K)
    for t in range(2, schedule.num_steps + 1):
        q = posterior(matrices, t - 1, t)
        log_p = np.stack([public_reverse(schedule, K, log_probs, state, t) for state in range(K + 1)])
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = np.where(q > 0, q * (np.log(q) - log_p[:, None]), 0).sum(-1).flatten()
        prediction = log_probs.expand(1, noisy.shape[1], K)
        found = process(name, K).divergence(prediction, noisy, clean[:, None], times(t, 1), times(t - 1, 1))
        np.testing.assert_allclose(found.kl[0, 0].numpy(), expected, atol=10 * TOLERANCE[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_candidates", [1, 4])
def test_kl_of_every_stride_and_candidate_is_the_dense_sum(name, num_candidates):
    diffusion, log_probs = process(name, K), logits(3, 20, K).log_softmax(-1)
    noisy, candidates = codes(K + 1, 3, 20, seed=1), codes(K, 3, num_candidates, 20, seed=2)
    for t, s in pairs(diffusion.num_steps):
        time, target = times(t, 3), times(s, 3)
        found = diffusion.divergence(log_probs, noisy, candidates, time, target)
        expected = dense_kl(diffusion, log_probs, noisy, candidates, time, target)
        torch.testing.assert_close(found.kl, expected, atol=1e-12, rtol=0)
        assert float(found.kl.min()) > -1e-12


def test_samples_of_different_steps_do_not_mix():
    diffusion, log_probs = process("toy", K), logits(3, 8, K).log_softmax(-1)
    noisy, candidates = codes(K + 1, 3, 8), codes(K, 3, 2, 8, seed=1)
    time, target = torch.tensor([5, 2, 1]), torch.tensor([3, 1, 0])
    together = diffusion.divergence(log_probs, noisy, candidates, time, target).kl
    torch.testing.assert_close(together, dense_kl(diffusion, log_probs, noisy, candidates, time, target))
    for one in (slice(0, 1), slice(1, 2), slice(2, 3)):
        alone = diffusion.divergence(log_probs[one], noisy[one], candidates[one], time[one], target[one]).kl
        torch.testing.assert_close(alone, together[one], atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_kl_to_the_clean_state_is_the_cross_entropy(name):
    diffusion, (noisy, clean) = process(name, K), every_token(K)
    log_probs = logits(1, noisy.shape[1], K).log_softmax(-1)
    for t in range(1, diffusion.num_steps + 1):
        found = diffusion.divergence(log_probs, noisy, clean[:, None], times(t, 1), times(0, 1))
        assert torch.equal(found.kl, found.nll)
        torch.testing.assert_close(found.nll[:, 0], -log_probs.gather(-1, clean[..., None])[..., 0])


@pytest.mark.parametrize("name", NAMES)
def test_kl_of_a_certain_and_true_prediction_is_zero(name):
    diffusion, (noisy, clean) = process(name, K), every_token(K)
    certain = (torch.nn.functional.one_hot(clean, K).double() * 600).log_softmax(-1)
    for t, s in pairs(diffusion.num_steps):
        found = diffusion.divergence(certain, noisy, clean[:, None], times(t, 1), times(s, 1))
        torch.testing.assert_close(found.kl, torch.zeros_like(found.kl), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("t", "share"), [(2, 0.9993), (3, 0.4998), (10, 1 / 9), (80, 1 / 79)])
def test_kl_of_a_masked_token_is_the_cross_entropy_times_the_chance_that_it_was_masked_now(t, share):
    """Exact for pure masking; the released schedule is that but for one token in a million."""
    diffusion, log_probs = MaskReplaceDiffusion(ReleasedSchedule(80), K), torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    found = diffusion.divergence(
        log_probs.expand(1, 1, K), torch.tensor([[K]]), torch.tensor([[[0]]]), times(t, 1), times(t - 1, 1)
    )
    assert float(found.kl / found.nll) == pytest.approx(share, rel=1e-3)


# Gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("t", "s"), [(3, 2), (5, 1), (2, 0)])
def test_gradient_is_that_of_the_dense_sum(name, t, s):
    diffusion, noisy, candidates = process(name, K), codes(K + 1, 2, 9), codes(K, 2, 3, 9, seed=1)
    weight, time, target = uniform(2, 3, 9, seed=2), times(t, 2), times(s, 2)
    scores = logits(2, 9, K).requires_grad_()
    dense = dense_kl(diffusion, scores.log_softmax(-1), noisy, candidates, time, target)
    (expected,) = torch.autograd.grad((dense * weight).sum(), scores)
    found = diffusion.divergence(scores.log_softmax(-1), noisy, candidates, time, target)
    (gradient,) = torch.autograd.grad((found.kl * weight).sum(), scores)
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["toy", "released"])
def test_gradient_passes_finite_differences(name):
    diffusion, noisy, candidates = process(name, 3), torch.tensor([[3, 0, 1]]), codes(3, 1, 2, 3)

    def terms(scores):
        return diffusion.divergence(scores.log_softmax(-1), noisy, candidates, times(4, 1), times(2, 1))

    assert torch.autograd.gradcheck(terms, logits(1, 3, 3).requires_grad_())


def test_kl_near_zero_keeps_its_digits_and_its_gradient_in_float32():
    """Confident copies at the public size: the discounted weights span twenty orders of magnitude."""
    diffusion = MaskReplaceDiffusion(ReleasedSchedule(80), 2887)
    noisy = codes(2887, 2, 8)
    scores = logits(2, 8, 2887).scatter_add(2, noisy[..., None], torch.full((2, 8, 1), 20.0).double())
    time, target = torch.tensor([40, 75]), torch.tensor([39, 74])

    def kl(dtype):
        leaf = scores.log_softmax(-1).to(dtype).requires_grad_()
        found = diffusion.divergence(leaf, noisy, noisy[:, None], time, target).kl
        return found.detach().double(), torch.autograd.grad(found.sum(), leaf)[0].double()

    (exact, exact_gradient), (single, gradient) = kl(torch.float64), kl(torch.float32)
    assert 0 < float(exact.max()) < 1e-3
    torch.testing.assert_close(single, exact, atol=1e-12, rtol=2e-5)
    torch.testing.assert_close(gradient, exact_gradient, atol=1e-12, rtol=2e-5)


def test_float32_agrees_with_float64_at_the_public_size():
    diffusion, time = MaskReplaceDiffusion(ReleasedSchedule(80), 2887), torch.tensor([2, 40, 80])
    clean = codes(2887, 3, 11, 16)
    noisy = diffusion.corrupt(clean[:, 0], time, uniform(3, 2, 16))
    log_probs = logits(3, 16, 2887, scale=3).log_softmax(-1)
    exact = diffusion.divergence(log_probs, noisy, clean, time, time - 1)
    single = diffusion.divergence(log_probs.float(), noisy, clean, time, time - 1)
    assert single.kl.dtype == single.nll.dtype == torch.float32
    torch.testing.assert_close(single.kl.double(), exact.kl, atol=1e-6, rtol=2e-6)
    torch.testing.assert_close(single.nll.double(), exact.nll, atol=1e-6, rtol=2e-6)


# What it costs -------------------------------------------------------------------------------------------------


class DenseTensors(TorchDispatchMode):
    """Counts the operators that make a tensor of at least a given size; views and in-place ones make none."""

    def __init__(self, size):
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() >= self.size:
            given = [x for x in (*args, *(kwargs or {}).values()) if isinstance(x, torch.Tensor)]
            storage = result.untyped_storage().data_ptr()
            self.count += all(storage != x.untyped_storage().data_ptr() for x in given)
        return result


def dense_tensors(num_candidates):
    """Dense tensors of one forward and backward pass, the log-softmax included."""
    diffusion, scores = process("released", 500), logits(2, 30, 500).float().requires_grad_()
    noisy, candidates = codes(501, 2, 30), codes(500, 2, num_candidates, 30, seed=1)
    with DenseTensors(scores.numel()) as counter:
        found = diffusion.divergence(scores.log_softmax(-1), noisy, candidates, times(4, 2), times(3, 2))
        (found.kl[:, 0].sum() + found.nll[:, 0].sum() - found.kl[:, 1:].sum()).backward()
    return counter.count


def test_ten_negatives_make_no_dense_tensor():
    assert dense_tensors(11) == dense_tensors(1)


def test_the_loss_makes_few_dense_tensors(monkeypatch):
    """Three of full size, log-softmax, its gradient and ours; the others are as large as a block."""
    assert dense_tensors(1) == 7
    monkeypatch.setitem(discrete_kl.BLOCK, "cpu", 1000)
    assert dense_tensors(1) == 3


def test_blocks_do_not_change_the_result(monkeypatch):
    diffusion, noisy, candidates = process("toy", K), codes(K + 1, 2, 9), codes(K, 2, 3, 9, seed=1)

    def run():
        scores = logits(2, 9, K).requires_grad_()
        kl = diffusion.divergence(scores.log_softmax(-1), noisy, candidates, times(4, 2), times(2, 2)).kl
        return kl.detach(), torch.autograd.grad(kl.sum(), scores)[0]

    whole = run()
    monkeypatch.setitem(discrete_kl.BLOCK, "cpu", 5 * K)
    for one, several in zip(whole, run(), strict=True):
        torch.testing.assert_close(one, several, atol=1e-14, rtol=0)
