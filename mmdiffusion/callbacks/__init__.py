"""When something is averaged, drawn, measured or saved."""

from mmdiffusion.callbacks.bad_steps import SkipBadSteps
from mmdiffusion.callbacks.bound import Bound
from mmdiffusion.callbacks.checkpoint import LastCheckpoint
from mmdiffusion.callbacks.compile import Compile
from mmdiffusion.callbacks.controls import AnotherPiece, ClickTrack, Control, MaskedInput
from mmdiffusion.callbacks.draws import Draw
from mmdiffusion.callbacks.ema import EMA
from mmdiffusion.callbacks.evaluate import Evaluate
from mmdiffusion.callbacks.gradients import GradientShare
from mmdiffusion.callbacks.progress import StepProgress
from mmdiffusion.callbacks.samples import LogSamples
from mmdiffusion.callbacks.start import StartFrom
from mmdiffusion.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "AnotherPiece",
    "Bound",
    "ClickTrack",
    "Compile",
    "Control",
    "Draw",
    "Evaluate",
    "GradientShare",
    "LastCheckpoint",
    "LogSamples",
    "MaskedInput",
    "SkipBadSteps",
    "StartFrom",
    "StepProgress",
    "Throughput",
]
