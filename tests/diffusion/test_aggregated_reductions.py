"""Where forward aggregation is plain diffusion: nothing is added, or two blocks are diffused as one."""

import warnings
from itertools import pairwise

import pytest
import torch

from mmdiffusion.diffusion import (
    AggregatedDiffusion,
    GaussianDiffusion,
    LinearDrift,
    LinearSchedule,
    NoDrift,
    OneshotDrift,
    SaturatingDrift,
    WeightedDrift,
)
from tests.diffusion.gaussian_oracles import SAMPLERS, TIME, T, close, normal

# Nothing is added ----------------------------------------------------------------------------------------------

REDUCTIONS = {
    "no_encodings": (SaturatingDrift(0.5), None),
    "no_drift": (NoDrift(), 1.0),
    "zero_weight": (WeightedDrift(0.0), 1.0),
    "zero_strength": (LinearDrift(0.0), 1.0),
    "zero_encodings": (SaturatingDrift(0.5), 0.0),
}


@pytest.fixture(params=REDUCTIONS)
def reduction(request, schedule):
    """An aggregated process in single precision, and encodings that change nothing."""
    drift, scale = REDUCTIONS[request.param]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="aggregation of .* the prior", category=UserWarning)
        process = AggregatedDiffusion(schedule, {"x": drift})
    return process, {} if scale is None else {"x": scale * normal(50, T, 3).float()}


def test_reduction_corrupts_bit_for_bit(reduction, schedule):
    process, encodings = reduction
    clean, noise = normal(51, T, 3).float(), normal(52, T, 3).float()
    assert torch.equal(
        process.corrupt(clean, TIME, noise, encodings), GaussianDiffusion(schedule).corrupt(clean, TIME, noise)
    )


def test_reduction_has_the_posterior_bit_for_bit(reduction, schedule):
    process, encodings = reduction
    args = normal(53, T, 3).float(), normal(54, T, 3).float(), TIME, TIME - 1
    expected = GaussianDiffusion(schedule).posterior(*args)
    assert all(torch.equal(a, b) for a, b in zip(process.posterior(*args, encodings), expected, strict=True))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_reduction_samples_bit_for_bit(reduction, schedule, sampler, clip):
    process, encodings = reduction
    plain, state = GaussianDiffusion(schedule), normal(55, T, 3).float()
    other = state
    times = process.step_times(4)
    for i, (t, s) in enumerate(pairwise(times)):
        time, target, noise = torch.full((T,), t), torch.full((T,), s), normal(i, T, 3).float()
        settings = {"sampler": sampler, "noise": noise, "clip": clip}
        state = process.step(lambda z, _: ((2 * z).tanh(), encodings), state, time, target, **settings)
        other = plain.step(lambda z, _: (2 * z).tanh(), other, time, target, **settings)
    assert torch.equal(state, other)


# Joint diffusion of two blocks ---------------------------------------------------------------------------------


@pytest.fixture
def blocks():
    """A process for [z_0, 0] with encodings [0, e] and their concatenation [z_0, e]."""
    process = AggregatedDiffusion(LinearSchedule(1000), {"x": OneshotDrift(1.0)}, dtype=torch.float64)
    clean, e = torch.zeros(1000, 4, dtype=torch.float64), torch.zeros(1000, 4, dtype=torch.float64)
    clean[:, :2], e[:, 2:] = normal(56, 1000, 2), normal(57, 1000, 2)
    return process, clean, e, clean + e, LinearSchedule(1000).alpha_bar()[:, None]


def test_oneshot_drift_of_orthogonal_blocks_is_diffusion_of_their_concatenation(blocks):
    process, clean, e, joint, abar = blocks
    time, noise = torch.arange(1, 1001), normal(58, 1000, 4)
    noisy = process.corrupt(clean, time, noise, {"x": e})
    close(noisy, abar[time].sqrt() * joint + (1 - abar[time]).sqrt() * noise)


def test_oneshot_posterior_of_orthogonal_blocks_is_that_of_their_concatenation(blocks):
    process, clean, e, joint, abar = blocks
    time, noisy = torch.arange(2, 1001), normal(59, 999, 4)
    alpha, before, now = abar[2:] / abar[1:-1], abar[1:-1], abar[2:]
    expected = before.sqrt() * (1 - alpha) * joint[1:] + alpha.sqrt() * (1 - before) * noisy
    mean, _ = process.posterior(noisy, clean[1:], time, time - 1, {"x": e[1:]})
    close(mean, expected / (1 - now))
