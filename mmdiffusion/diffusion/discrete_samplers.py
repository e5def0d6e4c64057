"""Samplers of mask-and-replace diffusion: one step from x_t to x_s, given a prediction of x_0 and uniform numbers.

Each is a function (diffusion, log_probs, noisy, time, target, noise) -> tokens, works for any stride s < t, and leaves
no [MASK] at s = 0. A run calls it along `diffusion.step_times(steps)`, from `diffusion.prior`.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.diffusion.categorical import draw_codes
from mmdiffusion.diffusion.discrete import LogProbs, MaskReplaceDiffusion, Times
from mmdiffusion.numbers import check_number


class TokenSampler(ABC):
    """One step of the reverse chain.

    Attributes:
        num_uniforms: Uniform numbers a token and step.
    """

    num_uniforms: ClassVar[int] = 3

    @abstractmethod
    def __call__(
        self,
        diffusion: MaskReplaceDiffusion,
        log_probs: LogProbs,
        noisy: Int[Tensor, "b l"],
        time: Times,
        target: Times,
        noise: Float[Tensor, "b uniforms l"],
    ) -> Int[Tensor, "b l"]:
        """Draw x_s (derived; the subclass names its source).

        Args:
            diffusion: The process.
            log_probs: log p_hat(x_0 = k | x_t), guided and truncated as wanted.
            noisy: x_t.
            time: t, 1..T.
            target: s, 0 to t - 1.
            noise: `num_uniforms` uniform numbers in [0, 1) for each token.
        """


class Ancestral(TokenSampler):
    """Draws x_s from p_theta(x_s | x_t), every token by itself (Gu et al. 2022, arXiv 2111.14822)."""

    def __call__(
        self,
        diffusion: MaskReplaceDiffusion,
        log_probs: LogProbs,
        noisy: Int[Tensor, "b l"],
        time: Times,
        target: Times,
        noise: Float[Tensor, "b 3 l"],
    ) -> Int[Tensor, "b l"]:
        """Draw x_s; see `MaskReplaceDiffusion.step`."""
        return diffusion.step(log_probs, noisy, time, target, noise)


class Remasking(TokenSampler):
    """Ancestral sampling that masks visible tokens again, so that an early mistake can be mended.

    ReMDM with the rescaled schedule (Wang et al. 2025, arXiv 2503.00307), whose marginals q(x_s | x_0) are those of the
    process, so that any trained network serves.

    Args:
        share: Probability of masking again as a share of the largest possible, 0 (ancestral) to 1.
    """

    def __init__(self, share: float = 0.1) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}: expected 0, which masks nothing again, to 1")
        self.share = share

    def __call__(
        self,
        diffusion: MaskReplaceDiffusion,
        log_probs: LogProbs,
        noisy: Int[Tensor, "b l"],
        time: Times,
        target: Times,
        noise: Float[Tensor, "b 3 l"],
    ) -> Int[Tensor, "b l"]:
        """Draw x_s; see `SparsePosterior.remasked`."""
        return diffusion.step(log_probs, noisy, time, target, noise, remask=self.share)


class ConfidenceUnmasking(TokenSampler):
    """Unmasks the most confident draws first: MaskGIT's parallel decoding (Chang et al. 2022, arXiv 2202.04200).

    x_0 is drawn for each masked token; of those the most confident stay, log p_hat(x_0) plus Gumbel noise whose scale
    falls linearly to 0, and the schedule's share gamma_bar_s / gamma_bar_t remains masked, rounded down, so that every
    step unmasks one at least. Visible tokens take an ancestral step, which mends what replacement may have left
    (MaskGIT keeps them: its process replaces none).

    Args:
        temperature: Scale of the Gumbel noise at T; 0 orders by confidence alone.
    """

    num_uniforms = 4

    def __init__(self, temperature: float = 1.0) -> None:
        check_number("temperature", temperature, least=0, remedy="0 orders by confidence alone")
        self.temperature = temperature

    def __call__(
        self,
        diffusion: MaskReplaceDiffusion,
        log_probs: LogProbs,
        noisy: Int[Tensor, "b l"],
        time: Times,
        target: Times,
        noise: Float[Tensor, "b 4 l"],
    ) -> Int[Tensor, "b l"]:
        """Draw x_s (Chang et al. 2022, Sec. 3.2, arXiv 2202.04200)."""
        clean = draw_codes(log_probs, noise[:, 2])
        visible_step = diffusion.posterior_draw(noisy, clean, time, target, noise[:, :2])
        rates = diffusion.rates(time, target, 1)
        masked = noisy == diffusion.mask_token
        count = masked.sum(1, keepdim=True)
        remaining = (count * (rates.gamma_bar_s / rates.gamma_bar_t)).long()

        gumbel = -(-noise[:, 3].double().clamp(min=1e-300).log()).log()
        scale = self.temperature * (target / diffusion.num_steps)[:, None]
        confidence = log_probs.gather(-1, clean[..., None]).squeeze(-1) + scale * gumbel
        # Rank of each token from the least confident on; visible ones come last.
        rank = torch.argsort(confidence.masked_fill(~masked, float("inf")), dim=1, stable=True).argsort(1)
        unmasked = torch.where(rank < remaining, noisy, clean)
        return torch.where(masked, unmasked, visible_step)
