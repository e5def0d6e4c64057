"""KL of the reverse kernel from one-hot posteriors without a table over the codes for each of them (derived).

The posterior q(x_s | x_t, x_0) has three distinct values over the codes, so its KL from p_theta needs log p_theta at
two codes and a sum over all. The sums depend on x_t and on the prediction only: they are shared by every candidate x_0,
such as the truth and a set of negatives, each of which then costs one gather a token.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmdiffusion.diffusion.discrete_posterior import Rates, SparsePosterior

BLOCK = {"cpu": 2**18, "cuda": 2**25}
"""Rows go in blocks of about so many numbers: on a CPU what its cache holds, elsewhere what memory spares."""


class Divergence(NamedTuple):
    """How far a prediction is from each candidate x_0, in nats a token.

    Attributes:
        kl: KL(q(x_s | x_t, x_0) || p_theta(x_s | x_t)); at s = 0 that is `nll`.
        nll: -log p_hat(x_0 | x_t), the x_0 cross-entropy.
    """

    kl: Float[Tensor, "b m l"]
    nll: Float[Tensor, "b m l"]


def divergence(
    log_probs: Float[Tensor, "b l codes"],
    noisy: Int[Tensor, "b l"],
    clean: Int[Tensor, "b m l"],
    rates: Rates,
) -> Divergence:
    """KL and cross-entropy for several candidates x_0 of each sample (derived; the terms of Gu et al. 2022).

    With w_k = p_hat_k / (alpha_bar_t 1[k = x_t] + beta_bar_t), W = sum w and o = alpha_bar_s / beta_bar_s the reverse
    kernel at a visible x_t is p(j) = (alpha 1[j = x_t] + beta) beta_bar_s W (1 + o w_j / W), so that

        KL = log(q(x_t | other) / q(x_t | x_0)) - log(beta_bar_t W) + q(x_0) log(1 + o) - sum_j q(j) log(1 + o w_j / W)

    and at [MASK] the same without the first two terms, with w = p_hat and W = 1. Everything is kept relative to
    beta_bar_t, which is about 1e-10 in the public schedule.

    Args:
        log_probs: Normalised log p_hat(x_0 = k | x_t), gradients flow to it.
        noisy: x_t.
        clean: Candidates for x_0, m a sample.
        rates: Rates at s and t, shaped (b 1 1).
    """
    num_codes = log_probs.shape[-1]
    visible, same = (noisy != num_codes)[:, None], noisy[:, None] == clean
    discount = torch.where(visible, rates.beta_bar_t / (rates.alpha_bar_t + rates.beta_bar_t), 1)
    odds = torch.where(rates.beta_bar_s > 0, rates.alpha_bar_s / rates.beta_bar_s.clamp(min=1e-300), 0)

    own = torch.where(visible, noisy[:, None], 0)
    index = torch.cat([clean, own], 1).movedim(1, -1)
    picked, total, spread = _Summaries.apply(log_probs, index, discount.mT, odds)
    picked, spread = picked.movedim(-1, 1), spread.mT
    # Where x_t is [MASK], W is 1 but for rounding.
    log_total = torch.where(visible, total.log().mT, 0)

    def gain(log_prob: Tensor, factor: Tensor) -> Tensor:
        """log(1 + o w_j / W), in log space."""
        return torch.logaddexp(odds.log() + log_prob + factor.log() - log_total, torch.zeros_like(log_prob))

    q = SparsePosterior.of(rates, noisy[:, None], clean, num_codes)
    at_clean = q.each + q.clean + torch.where(same, q.noisy, 0)
    cross = q.each * spread + q.noisy * gain(picked[:, -1:], discount)
    cross = cross + q.clean * gain(picked[:, :-1], torch.where(same, discount, 1))
    kl = torch.where(same, discount.log(), 0) - log_total + at_clean * odds.log1p() - cross
    nll = -picked[:, :-1]
    kl = torch.where(rates.beta_bar_s > 0, kl, nll)
    return Divergence(kl.to(log_probs.dtype), nll.to(log_probs.dtype))


class _Summaries(torch.autograd.Function):
    """What the KL needs of a table of log-probabilities, block by block: the gradient is the one dense tensor made.

    Returns in float64: log-probabilities at `index`, whose last entry is the visible code; W, the sum of the
    probabilities after that code's was discounted; and sum_j log(1 + odds w_j / W).
    """

    @staticmethod
    def forward(
        ctx: Any,
        log_probs: Float[Tensor, "b l codes"],
        index: Int[Tensor, "b l picks"],
        discount: Float64[Tensor, "b l 1"],
        odds: Float64[Tensor, "b 1 1"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        picked = log_probs.gather(-1, index)
        own, rows = index[..., -1:], index.shape[:2].numel()
        side = [x.expand_as(own).reshape(rows, 1) for x in (own, discount.to(log_probs.dtype), odds)]
        total, spread = (log_probs.new_empty(rows, 1) for _ in range(2))
        flat = log_probs.flatten(0, 1)
        for block in _blocks(flat):
            own, discount, odds = (x[block] for x in side)
            weights = _weights(flat[block], own, discount)
            total[block] = weights.sum(-1, keepdim=True)
            ratio = (odds / total[block]).to(weights.dtype)
            spread[block] = weights.mul_(ratio).add_(1).log_().sum(-1, keepdim=True)
        ctx.save_for_backward(log_probs, index, total, *side)
        return picked.double(), total.view(*index.shape[:2], 1).double(), spread.view(*index.shape[:2], 1).double()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator hides the signature)
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        log_probs, index, total, own, discount, odds = ctx.saved_tensors
        flat, gradient = log_probs.flatten(0, 1), torch.empty_like(log_probs).flatten(0, 1)
        d_picked, d_total, d_spread = gradients
        d_total, d_spread = d_total.reshape(-1, 1), d_spread.reshape(-1, 1)
        for block in _blocks(flat):
            weights = _weights(flat[block], own[block], discount[block])
            ratio = odds[block] / total[block]
            # d spread / d log w_j at fixed W, the probability that the gain at j is due to w_j.
            due = weights * ratio.to(weights.dtype)
            due.div_(due + 1)
            slope = d_total[block] - d_spread[block] * due.sum(-1, keepdim=True) / total[block]
            torch.addcmul(
                weights.mul_(slope.to(weights.dtype)), due, d_spread[block].to(weights.dtype), out=gradient[block]
            )
        gradient = gradient.view_as(log_probs).scatter_add_(-1, index, d_picked.to(log_probs.dtype))
        return gradient, None, None, None


def _weights(log_probs: Tensor, own: Tensor, discount: Tensor) -> Tensor:
    """w_k beta_bar_t: the probabilities, the visible code's discounted."""
    weights = log_probs.exp()
    return weights.scatter_(-1, own, weights.gather(-1, own) * discount)


def _blocks(flat: Tensor) -> list[slice]:
    size = max(1, BLOCK.get(flat.device.type, BLOCK["cuda"]) // flat.shape[-1])
    return [slice(start, start + size) for start in range(0, len(flat), size)]
