"""Frozen first stages: data to latents and back; outside of checkpoints, averages and optimizers."""

from mmdiffusion.codecs.base import TokenCodec
from mmdiffusion.codecs.image import GreyLevels

__all__ = ["GreyLevels", "TokenCodec"]
