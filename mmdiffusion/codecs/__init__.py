"""Tensors to latents, by frozen first stages."""

from mmdiffusion.codecs.audio_files import write_midi, write_wav
from mmdiffusion.codecs.music import SymbolicCodec

__all__ = ["SymbolicCodec", "write_midi", "write_wav"]
