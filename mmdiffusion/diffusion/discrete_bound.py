"""The evidence bound of a mask-and-replace chain, term by term, in nats and in bits a token."""

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.diffusion.discrete import LogProbs, MaskReplaceDiffusion, Times


def bits_per_token(
    diffusion: MaskReplaceDiffusion,
    predict: Callable[[Int[Tensor, "b l"], Times], LogProbs],
    clean: Int[Tensor, "b l"],
    draw_noise: Callable[[], Float[Tensor, "b 2 l"]],
    steps: int | None = None,
) -> dict[str, Tensor]:
    """Upper bound on -log2 p_theta(x_0), in bits a token (Austin et al. 2021, Eq. 1, arXiv 2107.03006).

    L_T + sum over t of KL(q(x_s | x_t, x_0) || p_theta(x_s | x_t)) + E[-log p_theta(x_0 | x_1)], with one draw of x_t a
    term: an unbiased estimate of the bound.

    Args:
        diffusion: The process.
        predict: The network: (x_t, t) to normalised log p_hat(x_0 | x_t).
        clean: x_0.
        draw_noise: Draws the uniform numbers of one corruption of `clean`.
        steps: Strides of the chain; `None` for all T, the tightest in expectation.

    Returns:
        `prior`, `diffusion`, `decoder` and their sum `total`, per sample.
    """
    times = diffusion.step_times(diffusion.num_steps if steps is None else steps)
    terms = {
        "prior": diffusion.prior_kl().expand(len(clean)),
        "diffusion": torch.zeros(len(clean), device=clean.device),
    }
    for t, s in itertools.pairwise(times):
        time, target = (torch.full((len(clean),), x, device=clean.device) for x in (t, s))
        noisy = diffusion.corrupt(clean, time, draw_noise())
        kl = diffusion.divergence(predict(noisy, time), noisy, clean[:, None], time, target).kl[:, 0].mean(1)
        if s == 0:
            terms["decoder"] = kl
        else:
            terms["diffusion"] = terms["diffusion"] + kl
    bits = {name: nats / math.log(2) for name, nats in terms.items()}
    return bits | {"total": bits["prior"] + bits["diffusion"] + bits["decoder"]}


def falling_weight(time: Times, num_steps: int) -> Float[Tensor, " b"]:
    """1 + (1 - (t - 1)/T), the weight of the auxiliary loss -log p_hat(x_0), heavier at small t.

    VQ-Diffusion's code since March 2022 and CDCD's for images (`adaptive_auxiliary_loss` in
    github.com/microsoft/VQ-Diffusion and github.com/L-YeZhu/CDCD; Gu et al. 2022, arXiv 2111.14822).

    Args:
        time: t of each sample, 1..T.
        num_steps: T.
    """
    return 2 - (time - 1) / num_steps


def rising_weight(time: Times, num_steps: int) -> Float[Tensor, " b"]:
    """1 + (t - 1)/T, the weight of the auxiliary loss in CDCD's music code, heavier at large t.

    The contrastive terms of all of CDCD's code are weighted so too (`diffusion_d2m.py` in github.com/L-YeZhu/CDCD;
    Zhu et al. 2023, arXiv 2206.07771).

    Args:
        time: t of each sample, 1..T.
        num_steps: T.
    """
    return 1 + (time - 1) / num_steps
