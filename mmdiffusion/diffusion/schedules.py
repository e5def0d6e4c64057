"""Noise schedules and aggregation schedules: float64 tables over the steps t = 0..T, index 0 the clean state."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float64
from torch import Tensor

from mmdiffusion.numbers import check_number

Table = Float64[Tensor, " steps"]


class NoiseSchedule(ABC):
    """How much signal is left at each step.

    Args:
        num_steps: T, the number of diffusion steps.
    """

    def __init__(self, num_steps: int = 1000) -> None:
        if num_steps < self.min_steps:
            raise ValueError(
                f"num_steps is {num_steps}: {type(self).__name__} needs at least {self.min_steps}; "
                "raise num_steps or take CosineSchedule"
            )
        self.num_steps = num_steps

    min_steps = 1

    @abstractmethod
    def alpha_bar(self) -> Table:
        """alpha_bar_t for t = 0..T, from exactly 1 downwards (Ho et al. 2020, Eq. 4, arXiv 2006.11239)."""

    @staticmethod
    def _cumulative(alpha: Float64[Tensor, " transitions"]) -> Table:
        return torch.cat([torch.ones(1, dtype=torch.float64), alpha.cumprod(0)])


class LinearSchedule(NoiseSchedule):
    """Linear beta schedule of DDPM, rescaled to any number of steps.

    beta_t runs from 1e-4 to 0.02, times 1000/T (Ho et al. 2020, Sec. 4, arXiv 2006.11239; rescaled as in Nichol &
    Dhariwal 2021, arXiv 2102.09672). Below 21 steps the last beta would exceed 1.
    """

    min_steps = 21

    def alpha_bar(self) -> Table:
        """alpha_bar_t, down to about 4e-5 (Ho et al. 2020, Sec. 4)."""
        scale = 1000 / self.num_steps
        beta = torch.linspace(1e-4 * scale, 0.02 * scale, self.num_steps, dtype=torch.float64)
        return self._cumulative(1 - beta)


class CosineSchedule(NoiseSchedule):
    """Cosine schedule (Nichol & Dhariwal 2021, Eq. 17, arXiv 2102.09672), beta clipped at 0.999."""

    def alpha_bar(self) -> Table:
        """alpha_bar_t, down to about 2e-9 at T = 1000 (Nichol & Dhariwal 2021, Eq. 17)."""
        u = torch.linspace(0, 1, self.num_steps + 1, dtype=torch.float64)
        f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return self._cumulative((f[1:] / f[:-1]).clamp(min=1 - 0.999))


class DriftSchedule(ABC):
    """How much of an extra modality's encoding is aggregated into z_t at each step: alpha_tilde_t.

    MT-Diffusion (arXiv 2407.17571) leaves its weights w_t open. We choose rho_t and set
    alpha_tilde_t = rho_t sqrt(alpha_bar_t): with a bounded rho it vanishes at T together with the signal, as the
    prior N(0, I) needs. `weights_from_drift` gives the w_t.
    """

    @abstractmethod
    def drift(self, alpha_bar: Table) -> Table:
        """alpha_tilde_t for t = 0..T, 0 at t = 0 (arXiv 2407.17571, Theorem 2)."""


class NoDrift(DriftSchedule):
    """Nothing is aggregated: plain DDPM with heads, the ablation w_t = 0."""

    def drift(self, alpha_bar: Table) -> Table:
        """alpha_tilde_t = 0 (arXiv 2407.17571, Theorem 2 with w = 0)."""
        return torch.zeros_like(alpha_bar)


class LinearDrift(DriftSchedule):
    """rho_t = strength * t/T: the extra modality fades out towards the clean state.

    Args:
        strength: rho_T, 0 or more.
    """

    def __init__(self, strength: float = 0.5) -> None:
        check_number("strength", strength, least=0)
        self.strength = strength

    def drift(self, alpha_bar: Table) -> Table:
        """alpha_tilde_t = rho_t sqrt(alpha_bar_t) (derived from arXiv 2407.17571, Theorem 2)."""
        share = torch.linspace(0, 1, len(alpha_bar), dtype=torch.float64)
        return self.strength * share * alpha_bar.sqrt()


class SaturatingDrift(DriftSchedule):
    """rho_t = strength * (1 - exp(-t/tau)), tau = time_scale * T: readable at nearly every step.

    Args:
        strength: rho for t much larger than tau, 0 or more.
        time_scale: tau as a share of T, above 0.
    """

    def __init__(self, strength: float = 0.5, time_scale: float = 0.05) -> None:
        check_number("time_scale", time_scale, above=0, remedy="for an immediate rise take OneshotDrift")
        check_number("strength", strength, least=0)
        self.strength = strength
        self.time_scale = time_scale

    def drift(self, alpha_bar: Table) -> Table:
        """alpha_tilde_t = rho_t sqrt(alpha_bar_t) (derived from arXiv 2407.17571, Theorem 2)."""
        share = torch.linspace(0, 1, len(alpha_bar), dtype=torch.float64)
        return -self.strength * torch.expm1(-share / self.time_scale) * alpha_bar.sqrt()


class OneshotDrift(DriftSchedule):
    """rho_t = strength for every t >= 1: the whole encoding enters at t = 1 (w_1 = strength, the others 0).

    Args:
        strength: rho, 0 or more.
    """

    def __init__(self, strength: float = 0.5) -> None:
        check_number("strength", strength, least=0)
        self.strength = strength

    def drift(self, alpha_bar: Table) -> Table:
        """alpha_tilde_t = rho sqrt(alpha_bar_t) for t >= 1 (derived from arXiv 2407.17571, Theorem 2)."""
        drift = self.strength * alpha_bar.sqrt()
        drift[0] = 0
        return drift


class WeightedDrift(DriftSchedule):
    """User-given w_t: one number for every step (an ablation: it usually breaks the prior) or a list of T numbers.

    Args:
        weights: w_t for t = 1..T, or one number for all.
    """

    def __init__(self, weights: float | list[float]) -> None:
        for weight in weights if isinstance(weights, list) else [weights]:
            check_number("weights", weight)
        self.weights = weights

    def drift(self, alpha_bar: Table) -> Table:
        """alpha_tilde_t by the recursion of the paper (arXiv 2407.17571, Theorem 2)."""
        num_steps = len(alpha_bar) - 1
        weights = self.weights if isinstance(self.weights, list) else [self.weights] * num_steps
        if len(weights) != num_steps:
            raise ValueError(f"weights has {len(weights)} numbers: expected one, or one a step, {num_steps}")
        return drift_from_weights(alpha_bar, torch.tensor([0.0, *weights], dtype=torch.float64))


def drift_from_weights(alpha_bar: Table, weights: Table) -> Table:
    """alpha_tilde_t = sqrt(alpha_t) (w_t + alpha_tilde_{t-1}), alpha_tilde_0 = 0 (arXiv 2407.17571, Theorem 2).

    Args:
        alpha_bar: Noise schedule, t = 0..T.
        weights: w_t for t = 0..T; entry 0 is not used.
    """
    drift = [torch.zeros((), dtype=torch.float64)]
    for alpha, weight in zip(alpha_bar[1:] / alpha_bar[:-1], weights[1:], strict=True):
        drift.append(alpha.sqrt() * (weight + drift[-1]))
    return torch.stack(drift)


def weights_from_drift(alpha_bar: Table, drift: Table) -> Table:
    """w_t = alpha_tilde_t / sqrt(alpha_t) - alpha_tilde_{t-1}, the inverse (derived from Theorem 2, arXiv 2407.17571).

    Works for any sub-sequence of steps too: give the tables at the kept steps.

    Returns:
        w_t for each entry, the first 0.
    """
    alpha = alpha_bar[1:] / alpha_bar[:-1]
    weights = drift[1:] / alpha.sqrt() - drift[:-1]
    return torch.cat([torch.zeros(1, dtype=torch.float64), weights])


def strided(num_steps: int, steps: int) -> list[int]:
    """Steps of a sampling run, `num_steps` first and 0 last, evenly strided (Song et al. 2021, arXiv 2010.02502).

    Args:
        num_steps: T, the steps of the schedule.
        steps: Number of strides, 1 to T.

    Raises:
        ValueError: if `steps` is outside 1..T.
    """
    if not 1 <= steps <= num_steps:
        raise ValueError(
            f"steps is {steps}: expected 1 to {num_steps}, the steps of the schedule; "
            "lower steps, or train with a longer schedule"
        )
    return [round(num_steps * i / steps) for i in range(steps, -1, -1)]
