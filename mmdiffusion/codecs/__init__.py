"""Frozen first stages: data to latents and back; outside of checkpoints, averages and optimizers."""

from mmdiffusion.codecs.audio_files import write_midi, write_wav
from mmdiffusion.codecs.base import TokenCodec
from mmdiffusion.codecs.image import GreyLevels
from mmdiffusion.codecs.music import SymbolicCodec
from mmdiffusion.codecs.symbolic import SymbolicMusic

__all__ = ["GreyLevels", "SymbolicCodec", "SymbolicMusic", "TokenCodec", "write_midi", "write_wav"]
