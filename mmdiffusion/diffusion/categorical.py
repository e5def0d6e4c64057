"""Categorical distributions over many codes, as log-probabilities: guide, sharpen and draw.

This serves sampling: draws and what truncation keeps have no gradient. Inputs below float32 are widened.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.numbers import check_number

LogProbs = Float[Tensor, "*b codes"]

NEVER = float("-inf")
NUM_ROWS = 256
"""Distributions that a CPU truncates at a time, so that its caches hold what is made on the way."""


def draw_codes(log_probs: LogProbs, uniform: Float[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """Draw one code from each distribution, with one uniform number each (derived: inverse distribution function).

    Gumbel or exponential noise would need a number for every code. Distributions need not be normalised.

    Args:
        log_probs: Log-probabilities, up to a constant each.
        uniform: Numbers in [0, 1).
    """
    # A parallel sum in float32 may fall by a rounding error and so select a code of mass 0; a sequential one cannot.
    sequential = log_probs.device.type == "cpu"
    masses = widen(log_probs.detach()).softmax(-1, dtype=None if sequential else torch.float64)
    torch.cumsum(masses, -1, out=masses)
    total = masses[..., -1:]
    below = torch.minimum(uniform[..., None].to(masses.dtype) * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(masses, below, right=True).squeeze(-1)


def widen(log_probs: LogProbs) -> LogProbs:
    """Log-probabilities in float32, or as they are if more precise (derived: log beta_bar is far below bfloat16)."""
    return log_probs.to(torch.promote_types(log_probs.dtype, torch.float32))


def guide(log_probs: LogProbs, log_null: LogProbs, scale: float) -> LogProbs:
    """Classifier-free guidance, log p_null + scale (log p - log p_null), normalised (Tang et al. 2022, 2205.16007).

    Args:
        log_probs: Given the condition.
        log_null: Given the null condition.
        scale: 0 ignores the condition, 1 is no guidance, more follows it closer.
    """
    return torch.lerp(widen(log_null), widen(log_probs), scale).log_softmax(-1)


def temper(log_probs: LogProbs, temperature: float) -> LogProbs:
    """p^(1 / temperature), normalised (derived).

    Args:
        log_probs: Normalised log-probabilities.
        temperature: Above 0; below 1 sharpens, 1 changes nothing.

    Raises:
        ValueError: if `temperature` is not above 0.
    """
    check_number("temperature", temperature, above=0, remedy="for the most probable code take top_k of 1")
    return log_probs if temperature == 1 else (widen(log_probs) / temperature).log_softmax(-1)


def truncate(log_probs: LogProbs, share: float) -> LogProbs:
    """Keep the most probable codes, up to and including the one that reaches the share, and normalise.

    A code stays if those more probable than it hold less than `share` together, so the first always does: the
    truncation of Gu et al. 2022, arXiv 2111.14822 (as in github.com/microsoft/VQ-Diffusion), or nucleus sampling.
    Codes as probable as the last one stay too, so that their order does not matter.

    Args:
        log_probs: Normalised log-probabilities.
        share: Above 0; 1 keeps everything.

    Raises:
        ValueError: if `share` is outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: expected above 0 and at most 1, which keeps every code")
    if share == 1:
        return log_probs
    rows = log_probs.reshape(-1, log_probs.shape[-1])
    parts = rows.split(NUM_ROWS) if rows.device.type == "cpu" else (rows,)
    return torch.cat([_keep_share(part, share) for part in parts]).reshape(log_probs.shape)


def _keep_share(log_probs: LogProbs, share: float) -> LogProbs:
    rising = _sort(log_probs)
    masses = rising.softmax(-1)
    torch.cumsum(masses, -1, out=masses)
    last = torch.searchsorted(masses, masses[..., -1:] - share, right=True).clamp(max=masses.shape[-1] - 1)
    return _keep_from(log_probs, rising.gather(-1, last))


def top_k(log_probs: LogProbs, count: int) -> LogProbs:
    """Keep the `count` most probable codes, and those as probable as the last one, and normalise (derived).

    Args:
        log_probs: Log-probabilities.
        count: 1 to the number of codes.

    Raises:
        ValueError: if `count` is outside 1..K.
    """
    num_codes = log_probs.shape[-1]
    if not 1 <= count <= num_codes:
        raise ValueError(f"count is {count}: expected 1 to {num_codes}, the number of codes")
    return _keep_from(log_probs, _sort(log_probs)[..., num_codes - count, None])


def _keep_from(log_probs: LogProbs, least: Float[Tensor, "*b 1"]) -> LogProbs:
    return torch.where(log_probs < least, NEVER, widen(log_probs)).log_softmax(-1)


def _sort(log_probs: LogProbs) -> LogProbs:
    """Values in rising order. NumPy's vectorised sort was 30 times faster than torch's, which also sorts indices."""
    if log_probs.device.type != "cpu":
        return log_probs.sort(-1).values
    return torch.from_numpy(np.sort(widen(log_probs.detach()).numpy(), axis=-1))
