"""Frozen first stages: data to latents and back; outside of checkpoints, averages and optimizers."""

from mmdiffusion.codecs.audio_files import write_midi, write_wav
from mmdiffusion.codecs.audio_tokens import AudioTokens, DACTokens, EnCodecTokens
from mmdiffusion.codecs.base import TokenCodec
from mmdiffusion.codecs.clip import CLIPTower
from mmdiffusion.codecs.encoder import Encoder
from mmdiffusion.codecs.frozen import FrozenCodec
from mmdiffusion.codecs.image import GreyLevels
from mmdiffusion.codecs.image_tower import CLIPImageTower, ImageTower
from mmdiffusion.codecs.latents import AutoencoderKLLatents, LatentCodec, Pixels
from mmdiffusion.codecs.learned import LearnedTokens
from mmdiffusion.codecs.music import SymbolicCodec
from mmdiffusion.codecs.symbolic import SymbolicMusic
from mmdiffusion.codecs.text import HashTower, Text, TextTower
from mmdiffusion.codecs.vq_model import VQModelTokens

__all__ = [
    "AudioTokens",
    "AutoencoderKLLatents",
    "CLIPImageTower",
    "CLIPTower",
    "DACTokens",
    "EnCodecTokens",
    "Encoder",
    "FrozenCodec",
    "GreyLevels",
    "HashTower",
    "ImageTower",
    "LatentCodec",
    "LearnedTokens",
    "Pixels",
    "SymbolicCodec",
    "SymbolicMusic",
    "Text",
    "TextTower",
    "TokenCodec",
    "VQModelTokens",
    "write_midi",
    "write_wav",
]
