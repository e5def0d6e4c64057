"""When something is averaged, drawn, measured or saved."""

from mmdiffusion.callbacks.checkpoint import LastCheckpoint
from mmdiffusion.callbacks.controls import AnotherPiece, ClickTrack, Control
from mmdiffusion.callbacks.draws import Draw
from mmdiffusion.callbacks.ema import EMA
from mmdiffusion.callbacks.evaluate import Evaluate
from mmdiffusion.callbacks.gradients import GradientShare
from mmdiffusion.callbacks.progress import StepProgress
from mmdiffusion.callbacks.samples import LogSamples

__all__ = [
    "EMA",
    "AnotherPiece",
    "ClickTrack",
    "Control",
    "Draw",
    "Evaluate",
    "GradientShare",
    "LastCheckpoint",
    "LogSamples",
    "StepProgress",
]
