"""Diffusion mathematics, true for any network."""

from mmdiffusion.diffusion.aggregated import AggregatedDiffusion
from mmdiffusion.diffusion.bound import bits_per_dim
from mmdiffusion.diffusion.gaussian import GaussianDiffusion
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
    "CosineSchedule",
    "GaussianDiffusion",
    "LinearDrift",
    "LinearSchedule",
    "NoDrift",
    "OneshotDrift",
    "SaturatingDrift",
    "WeightedDrift",
    "bits_per_dim",
]
