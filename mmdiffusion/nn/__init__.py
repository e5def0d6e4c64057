"""Networks: learnable weights that any method could use."""

from mmdiffusion.nn.alignment import AlignmentHead
from mmdiffusion.nn.autoencoder import QuantisedAutoencoder
from mmdiffusion.nn.conditioners import LabelConditioner
from mmdiffusion.nn.denoiser import Denoised, Denoiser, Level
from mmdiffusion.nn.modalities import MiddleLabelHead, OutputLabelHead
from mmdiffusion.nn.motion import MotionConditioner
from mmdiffusion.nn.motion_reference import ReferenceMotionConditioner
from mmdiffusion.nn.text import TowerConditioner, WordConditioner

__all__ = [
    "AlignmentHead",
    "Denoised",
    "Denoiser",
    "LabelConditioner",
    "Level",
    "MiddleLabelHead",
    "MotionConditioner",
    "OutputLabelHead",
    "QuantisedAutoencoder",
    "ReferenceMotionConditioner",
    "TowerConditioner",
    "WordConditioner",
]
