"""What clips of dances from files have in common: their settings, and numbers that others computed."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.data.files import DamagedError
from mmdiffusion.types import FeatureSpec

VIDEO = FeatureSpec((2048,))
"""I3D feature of a clip."""
Gain = tuple[float, float] | None


def read_numbers(path: Path, shape: tuple[int, ...]) -> Float[Tensor, "..."]:
    """Numbers of a `.npy` file.

    Args:
        path: The file.
        shape: What is made of them; the file may have them in another, such as (1, 2048) for (2048,).

    Raises:
        DamagedError: if it cannot be read, has more or fewer numbers, or some that are not finite.
    """
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a header alone cannot ask for memory
        if stored.size != np.prod(shape):
            raise DamagedError(path, f"it has shape {stored.shape}: expected {shape}")
        numbers = torch.from_numpy(np.array(stored, dtype=np.float32)).reshape(shape)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise DamagedError(path, error) from error
    if not numbers.isfinite().all():
        raise DamagedError(path, f"it has {int((~numbers.isfinite()).sum())} numbers that are not finite")
    return numbers


def check_clips(seconds: float, fps: int, sample_rate: int, gain: Gain, name: str = "seconds") -> int:
    """Check the length of clips and how their music is read.

    Args:
        seconds: The length.
        fps: Frames a second.
        sample_rate: Samples of music a second.
        gain: Range of a factor on its loudness.
        name: Of the field that has the length.

    Returns:
        Frames of a clip.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    num_frames = round(seconds * fps)
    if num_frames < 1 or abs(num_frames - seconds * fps) > 1e-6:
        raise ValueError(f"{name} is {seconds}: expected a whole number of frames, {fps} a second, at least one")
    if sample_rate < 1:
        raise ValueError(f"sample_rate is {sample_rate}: expected at least 1 sample a second")
    if gain is not None and not 0 < gain[0] <= gain[1] <= 1:
        raise ValueError(f"gain is {list(gain)}: expected a range above 0, up to 1 at most")
    return num_frames
