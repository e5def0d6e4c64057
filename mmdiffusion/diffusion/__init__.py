"""Diffusion mathematics, true for any network."""

from mmdiffusion.diffusion.aggregated import AggregatedDiffusion
from mmdiffusion.diffusion.bound import bits_per_dim
from mmdiffusion.diffusion.discrete import MaskReplaceDiffusion
from mmdiffusion.diffusion.discrete_bound import bits_per_token
from mmdiffusion.diffusion.discrete_samplers import Ancestral, ConfidenceUnmasking, Remasking
from mmdiffusion.diffusion.discrete_schedules import (
    CosineMaskingSchedule,
    MaskAndReplaceSchedule,
    ReleasedSchedule,
    TableSchedule,
)
from mmdiffusion.diffusion.gaussian import GaussianDiffusion
from mmdiffusion.diffusion.importance import ImportanceTimes
from mmdiffusion.diffusion.schedules import (
    CosineSchedule,
    LinearDrift,
    LinearSchedule,
    NoDrift,
    OneshotDrift,
    SaturatingDrift,
    WeightedDrift,
)

__all__ = [
    "AggregatedDiffusion",
    "Ancestral",
    "ConfidenceUnmasking",
    "CosineMaskingSchedule",
    "CosineSchedule",
    "GaussianDiffusion",
    "ImportanceTimes",
    "LinearDrift",
    "LinearSchedule",
    "MaskAndReplaceSchedule",
    "MaskReplaceDiffusion",
    "NoDrift",
    "OneshotDrift",
    "ReleasedSchedule",
    "Remasking",
    "SaturatingDrift",
    "TableSchedule",
    "WeightedDrift",
    "bits_per_dim",
    "bits_per_token",
]
