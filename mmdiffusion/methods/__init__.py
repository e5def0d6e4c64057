"""One paper, one file, one LightningModule."""

from mmdiffusion.methods.mt_diffusion import MTDiffusion

__all__ = ["MTDiffusion"]
