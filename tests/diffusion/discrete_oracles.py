"""Mask-and-replace diffusion the long way: transition matrices and the public code's log-space routine, in NumPy.

A state is 0..K-1 or K = [MASK]; `matrix[j, i]` is the probability of going from i to j.
"""

import numpy as np
import torch
from scipy.special import logsumexp

from mmdiffusion.diffusion import (
    CosineMaskingSchedule,
    MaskAndReplaceSchedule,
    MaskReplaceDiffusion,
    ReleasedSchedule,
    TableSchedule,
)

K = 4
MASK = K

TOY_KEEP = [0.9 - 0.2125 * i for i in range(5)]
TOY_MASK = [0.05 + 0.2 * i for i in range(5)]
SCHEDULES = {
    "toy": TableSchedule(TOY_KEEP, TOY_MASK),
    "released": ReleasedSchedule(6),
    "mask_and_replace": MaskAndReplaceSchedule(6),
    "cosine": CosineMaskingSchedule(6),
}
NAMES = list(SCHEDULES)

TOLERANCE = {"toy": 1e-13, "released": 1e-8, "mask_and_replace": 1e-12, "cosine": 1e-8}
"""Of the oracles: with a replaced share of 1e-6 they subtract numbers that agree in eight to ten digits."""


def process(name, num_codes):
    return MaskReplaceDiffusion(SCHEDULES[name], num_codes)


def toy():
    return process("toy", 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=generator(seed), dtype=dtype)


def codes(num_codes, *shape, seed=0):
    return torch.randint(num_codes, shape, generator=generator(seed))


def logits(*shape, seed=0, scale=2.0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64) * scale


def times(value, size):
    return torch.full((size,), value)


def one_step_rates(schedule):
    """alpha_t, K beta_t and gamma_t for t = 1..T, by division."""
    keep, mask = schedule.keep().numpy(), schedule.mask().numpy()
    alpha, gamma = keep[1:] / keep[:-1], 1 - (1 - mask[1:]) / (1 - mask[:-1])
    return alpha, 1 - alpha - gamma, gamma


def one_step_matrices(schedule, num_codes):
    """Q_t for t = 1..T as list."""
    matrices = []
    for alpha, replace, gamma in zip(*one_step_rates(schedule), strict=True):
        matrix = np.full((num_codes + 1, num_codes + 1), replace / num_codes)
        matrix[np.arange(num_codes), np.arange(num_codes)] += alpha
        matrix[-1, :] = gamma
        matrix[:, -1] = 0
        matrix[-1, -1] = 1
        matrices.append(matrix)
    return matrices


def between(matrices, target, time):
    """q(x_t | x_s), the product of the one-step matrices."""
    product = np.eye(len(matrices[0]))
    for matrix in matrices[target:time]:
        product = matrix @ product
    return product


def posterior(matrices, target, time):
    """q(x_s = j | x_t = i, x_0 = k) as [i, k, j], by Bayes' rule; rows of evidence 0 are not a number."""
    likelihood, prior = between(matrices, target, time), between(matrices, 0, target)
    joint = likelihood[:, None, :] * prior.T[None, :-1, :]
    with np.errstate(invalid="ignore"):
        return joint / joint.sum(-1, keepdims=True)


def public_reverse(schedule, num_codes, log_probs, noisy, time):
    """log p_theta(x_{t-1} | x_t) of one token, step by step as the public code goes about it, without its floors.

    Divide the prediction by q(x_t | x_0 = .), normalise, push it through the cumulative kernel to t - 1, multiply by
    q(x_t | x_{t-1} = .), and restore the normaliser.
    """
    matrices = one_step_matrices(schedule, num_codes)
    with np.errstate(divide="ignore"):
        evidence = np.log(between(matrices, 0, time)[noisy, :-1])
        cumulative = np.log(between(matrices, 0, time - 1)[:, :-1])
        likelihood = np.log(matrices[time - 1][noisy])
    weights = np.asarray(log_probs) - evidence
    normaliser = logsumexp(weights)
    return logsumexp(cumulative + (weights - normaliser)[None], axis=1) + likelihood + normaliser


def every_token(num_codes):
    """All pairs (x_t, x_0) as two rows of tokens, x_t also [MASK]."""
    noisy, clean = torch.meshgrid(torch.arange(num_codes + 1), torch.arange(num_codes), indexing="ij")
    return noisy.reshape(1, -1), clean.reshape(1, -1)


def pairs(num_steps):
    """All (t, s) with s < t."""
    return [(t, s) for t in range(1, num_steps + 1) for s in range(t)]
