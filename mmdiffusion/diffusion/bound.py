"""The negative evidence bound of a Gaussian chain, term by term, in nats and in bits per dimension."""

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.diffusion.gaussian import GaussianDiffusion, State, Times, at

Nats = Float[Tensor, " b"]


def gaussian_kl(mean_q: State, variance_q: Tensor, mean_p: State, variance_p: Tensor) -> Nats:
    """KL(N(mean_q, variance_q) || N(mean_p, variance_p)) in nats, summed over each sample (Ho et al. 2020, App. A).

    Args:
        mean_q: Mean of the first.
        variance_q: Its variance, broadcastable.
        mean_p: Mean of the second.
        variance_p: Its variance, broadcastable.
    """
    ratio = variance_q / variance_p
    kl = 0.5 * (ratio - 1 - ratio.log() + (mean_q - mean_p) ** 2 / variance_p)
    return kl.expand_as(mean_q).reshape(len(mean_q), -1).sum(1)


def prior_kl(diffusion: GaussianDiffusion, mean: State) -> Nats:
    """L0 = KL(q(z_T | z_0, X) || N(0, I)) (arXiv 2407.17571, Theorem 1; L_T of Ho et al. 2020, Eq. 5).

    Args:
        diffusion: The process.
        mean: Mean of z_T, that is `diffusion.corrupt` at T with zero noise.
    """
    variance = (diffusion.noise_level[-1] ** 2).expand_as(mean)
    return gaussian_kl(mean, variance, torch.zeros_like(mean), torch.ones_like(mean))


def decoder_nll(diffusion: GaussianDiffusion, clean: State, estimated: State, time: Times, num_levels: int) -> Nats:
    """-log p(z_0 | z_t) of the last step: a Gaussian integrated over each grey level's bin (Ho et al. 2020, Eq. 13).

    Its variance is the last forward step's.

    Args:
        diffusion: The process.
        clean: z_0 on an even grid of `num_levels` values in [-1, 1].
        estimated: The model's estimate of z_0 from z_t.
        time: t of the last step.
        num_levels: Number of grey levels of the data.
    """
    half = 1 / (num_levels - 1)
    spread = at(diffusion.noise_level, time, clean)
    upper, lower = (clean + half - estimated) / spread, (clean - half - estimated) / spread
    below_upper, above_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(-lower)
    # log(Phi(upper) - Phi(lower)), on the tail where both are small and subtraction keeps its digits.
    left = upper + lower < 0
    larger = torch.where(left, below_upper, above_lower)
    smaller = torch.where(left, torch.special.log_ndtr(lower), torch.special.log_ndtr(-upper))
    inside = larger + torch.log(-torch.expm1(smaller - larger))
    log_likelihood = torch.where(clean > 1 - half, above_lower, torch.where(clean < half - 1, below_upper, inside))
    return -log_likelihood.reshape(len(clean), -1).sum(1)


def bits_per_dim(
    diffusion: GaussianDiffusion,
    predict: Callable[[State, Times], State],
    clean: State,
    draw_noise: Callable[[], State],
    num_levels: int,
    steps: int | None = None,
) -> dict[str, Nats]:
    """Upper bound on -log2 p(z_0) per dimension, from a strided chain with posterior variance (Ho et al. 2020, Eq. 5).

    The chain is the plain one: for a model with extra modalities, the bound of its image when nothing else is given.

    Args:
        diffusion: The process.
        predict: The network: (z_t, t) to prediction.
        clean: z_0 on an even grid of `num_levels` values in [-1, 1].
        draw_noise: Draws standard normal numbers of `clean`'s shape.
        num_levels: Number of grey levels of the data.
        steps: Strides of the chain; `None` for all T, the tightest: a strided bound holds, but can be far above.

    Returns:
        `prior`, `diffusion`, `decoder` and their sum `total`, per sample.
    """
    times = diffusion.step_times(diffusion.num_steps if steps is None else steps)
    end = torch.full((len(clean),), diffusion.num_steps, device=clean.device)
    terms = {"prior": prior_kl(diffusion, diffusion.corrupt(clean, end, torch.zeros_like(clean)))}
    terms["diffusion"] = torch.zeros_like(terms["prior"])
    for t, s in itertools.pairwise(times):
        time, target = (torch.full((len(clean),), x, device=clean.device) for x in (t, s))
        noisy = diffusion.corrupt(clean, time, draw_noise())
        estimated = diffusion.predict_x0(noisy, time, predict(noisy, time))
        if s == 0:
            terms["decoder"] = decoder_nll(diffusion, clean, estimated, time, num_levels)
        else:
            mean, variance = diffusion.posterior(noisy, clean, time, target)
            model_mean, _ = diffusion.posterior(noisy, estimated, time, target)
            terms["diffusion"] = terms["diffusion"] + gaussian_kl(mean, variance, model_mean, variance)
    bits = {name: nats / (clean[0].numel() * math.log(2)) for name, nats in terms.items()}
    return bits | {"total": bits["prior"] + bits["diffusion"] + bits["decoder"]}
