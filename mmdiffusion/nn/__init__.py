"""Networks: learnable weights that any method could use."""

from mmdiffusion.nn.alignment import AlignmentHead
from mmdiffusion.nn.autoencoder import QuantisedAutoencoder
from mmdiffusion.nn.conditioners import LabelConditioner
from mmdiffusion.nn.denoiser import Denoised, Denoiser, Level
from mmdiffusion.nn.encoders import Encoder, IdentityEncoder, NoEncoder, OwnChannels, OwnToken, PaletteEncoder
from mmdiffusion.nn.heads import Head, MiddleHead, OutputHead, OwnHead, TokensHead
from mmdiffusion.nn.motion import MotionConditioner
from mmdiffusion.nn.motion_reference import ReferenceMotionConditioner
from mmdiffusion.nn.table_encoders import BackboneEncoder, TableEncoder
from mmdiffusion.nn.text import TowerConditioner, WordConditioner

__all__ = [
    "AlignmentHead",
    "BackboneEncoder",
    "Denoised",
    "Denoiser",
    "Encoder",
    "Head",
    "IdentityEncoder",
    "LabelConditioner",
    "Level",
    "MiddleHead",
    "MotionConditioner",
    "NoEncoder",
    "OutputHead",
    "OwnChannels",
    "OwnHead",
    "OwnToken",
    "PaletteEncoder",
    "QuantisedAutoencoder",
    "ReferenceMotionConditioner",
    "TableEncoder",
    "TokensHead",
    "TowerConditioner",
    "WordConditioner",
]
