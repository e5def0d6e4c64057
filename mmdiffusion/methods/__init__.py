"""One paper, one file, one LightningModule."""

from mmdiffusion.methods.cdcd import CDCD
from mmdiffusion.methods.contrast import Contrast
from mmdiffusion.methods.diffdis import DiffDis
from mmdiffusion.methods.mt_diffusion import MTDiffusion
from mmdiffusion.methods.negatives import InterNegatives, IntraNegatives
from mmdiffusion.methods.tower_captions import TowerCaptions
from mmdiffusion.methods.vq_autoencoder import VQAutoencoder

__all__ = [
    "CDCD",
    "Contrast",
    "DiffDis",
    "InterNegatives",
    "IntraNegatives",
    "MTDiffusion",
    "TowerCaptions",
    "VQAutoencoder",
]
