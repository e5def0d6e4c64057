"""Beat detectors: audio or motion in, the times of its beats in seconds out."""

import functools
import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from importlib.metadata import version

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.metrics.first_use import one_at_a_time

SAMPLE_RATE, HOP = 22050, 512
"""What librosa and the published beat scripts assume: one frame of onset strength every 23.2 ms."""
MIN_SAMPLES = 2048
"""One window of librosa's spectrogram."""
NUM_REMEMBERED = 8192
"""Clips whose beats are kept, oldest forgotten first: several metrics and columns ask for the same ones."""

_remembered: OrderedDict[tuple[type, str, bytes], np.ndarray] = OrderedDict()


class BeatDetector(ABC):
    """Turns clips into beat times.

    Attributes:
        name: Short name that appears in the metric, as in `beat_hit[onset-1s]`.
    """

    name: str

    @abstractmethod
    def __call__(self, clips: Float[Tensor, "b ..."]) -> list[Float[Tensor, " _"]]:
        """Rising times in seconds from the start of each of b clips, float64 on the CPU; empty where there is none."""

    @abstractmethod
    def signature(self) -> str:
        """One line that fixes the result, for the protocol: detectors of one signature find the same beats."""


class AudioBeats(BeatDetector):
    """Detector of beats in audio, clip by clip, always at 22,050 Hz as the published scripts load their files.

    Times lie on a grid of 23.2 ms and come late, for clicks by about 20 ms (40 ms from `LibrosaBeats`): no matter
    between two detections, but something to know where they meet times from elsewhere.

    Args:
        sample_rate: Samples a second of the clips; others than 22,050 are resampled (soxr, high quality).

    Raises:
        ValueError: If `sample_rate` is below 1.
    """

    def __init__(
        self,
        sample_rate: int,
    ) -> None:
        if sample_rate < 1:
            raise ValueError(f"sample_rate: found {sample_rate}, expected at least 1; 22050 is usual for beats")
        self.sample_rate = sample_rate

    @abstractmethod
    def detect(self, clip: np.ndarray) -> np.ndarray:
        """Beat times in seconds of one clip, float32 at 22,050 Hz."""

    def __call__(self, clips: Float[Tensor, "b samples"]) -> list[Float[Tensor, " _"]]:
        """Beat times of each clip.

        Args:
            clips: (b samples) mono audio in [-1, 1].

        Returns:
            b tensors of rising times in seconds, float64 on the CPU; silence has none.

        Raises:
            ValueError: If a clip holds NaN or infinity, or clips are shorter than 2048 samples at 22,050 Hz.
        """
        _check_finite(clips, "audio")
        if len(clips) and clips.shape[1] * SAMPLE_RATE < MIN_SAMPLES * self.sample_rate:
            raise ValueError(
                f"audio: found clips of {clips.shape[1] / self.sample_rate:.4f} s, expected at least "
                f"{MIN_SAMPLES / SAMPLE_RATE:.4f} s to look for beats in; give longer clips or check sample_rate"
            )
        return [torch.from_numpy(self._recall(clip).copy()) for clip in clips.detach().cpu().float().numpy()]

    def _recall(self, clip: np.ndarray) -> np.ndarray:
        """`detect`, or what it found in the same samples before: a detector costs milliseconds, a hash none."""
        key = type(self), self.signature(), hashlib.blake2b(clip.tobytes(), digest_size=16).digest()
        if key not in _remembered:
            while len(_remembered) >= NUM_REMEMBERED:
                _remembered.popitem(last=False)
            with one_at_a_time(type(self)):
                _remembered[key] = self.detect(self._resampled(clip)).astype(np.float64)
        return _remembered[key]

    def _resampled(self, clip: np.ndarray) -> np.ndarray:
        import librosa

        if self.sample_rate == SAMPLE_RATE:
            return clip
        return librosa.resample(clip, orig_sr=self.sample_rate, target_sr=SAMPLE_RATE)

    def _origin(self) -> str:
        """Library version and sample rate, for the signature."""
        resampled = "" if self.sample_rate == SAMPLE_RATE else f", resampled from {self.sample_rate} Hz"
        return f"librosa {_librosa_version()}, hop {HOP} at {SAMPLE_RATE} Hz{resampled}"


class OnsetPeaks(AudioBeats):
    """Onsets as the published dance-to-music scores take them for beats: peaks of librosa's onset strength.

    The strength is scaled to [0, 1] within a clip. A frame n is an onset if it is the largest of the frames
    n - w .. n + w - 1 and exceeds their mean by 0.2; the frame after an onset is none. With w = 1 this asks for a rise
    of 0.4 from one frame to the next, so one loud hit in a clip can hide the quiet ones.
    Source: Zhu et al., D2M-GAN (arXiv:2204.00604) and CDCD (arXiv:2206.07771), whose scores are computed by
    github.com/L-YeZhu/Beats_Scores with w = 1 (`pre_avg=post_avg=post_max=1`, `pre_max` left at librosa's 30 ms, one
    frame); LORIS (Yu et al. 2023, arXiv:2305.01319) uses w = 3 in github.com/OpenGVLab/LORIS, beats_scores.py.

    Args:
        sample_rate: Samples a second of the clips; others than 22,050 are resampled.
        window: Frames w of 23.2 ms on either side of a peak: 1 for the scores of CDCD, 3 for those of LORIS.

    Raises:
        ValueError: If `sample_rate` or `window` is below 1.
    """

    def __init__(
        self,
        sample_rate: int,
        window: int = 1,
    ) -> None:
        super().__init__(sample_rate)
        if window < 1:
            raise ValueError(f"window: found {window}, expected at least 1; CDCD uses 1, LORIS 3")
        self.window = window
        self.name = "onset" if window == 1 else f"onset{window}"

    def detect(self, clip: np.ndarray) -> np.ndarray:
        """Onset times in seconds of one clip, float32 at 22,050 Hz."""
        import librosa

        w = self.window
        strength = librosa.onset.onset_strength(y=clip, sr=SAMPLE_RATE, hop_length=HOP)
        return librosa.onset.onset_detect(
            onset_envelope=strength,
            sr=SAMPLE_RATE,
            hop_length=HOP,
            units="time",
            pre_max=w,
            post_max=w,
            pre_avg=w,
            post_avg=w,
            delta=0.2,
            wait=1,
        )

    def signature(self) -> str:
        """Name, library and sample rate, windows and threshold."""
        return f"{self.name}, onset strength of {self._origin()}, windows of {self.window}, delta 0.2, wait 1"


class LibrosaBeats(AudioBeats):
    """Beats of a steady tempo: librosa's dynamic-programming beat tracker with its own settings.

    Unlike `OnsetPeaks` it fills beats that nobody plays, and drops weak ones at both ends of a clip.
    Source: Ellis 2007, "Beat Tracking by Dynamic Programming"; `librosa.beat.beat_track`.

    Args:
        sample_rate: Samples a second of the clips; others than 22,050 are resampled.
        start_bpm: Tempo in beats a minute around which the tempo is looked for, above 0.

    Raises:
        ValueError: If `sample_rate` is below 1 or `start_bpm` is not above 0.
    """

    name = "librosa"

    def __init__(
        self,
        sample_rate: int,
        start_bpm: float = 120.0,
    ) -> None:
        super().__init__(sample_rate)
        if start_bpm <= 0:
            raise ValueError(f"start_bpm: found {start_bpm}, expected above 0; librosa's own value is 120")
        self.start_bpm = start_bpm

    def detect(self, clip: np.ndarray) -> np.ndarray:
        """Beat times in seconds of one clip, float32 at 22,050 Hz."""
        import librosa

        _, times = librosa.beat.beat_track(
            y=clip, sr=SAMPLE_RATE, hop_length=HOP, start_bpm=self.start_bpm, tightness=100, trim=True, units="time"
        )
        return times

    def signature(self) -> str:
        """Name, library and sample rate, expected tempo."""
        return f"{self.name}, beat_track of {self._origin()}, start {self.start_bpm:g} BPM, tightness 100, trimmed"


class KinematicBeats(BeatDetector):
    """Beats of a dance: the moments in which the body moves slowest.

    The speed of a frame is the mean over joints of the distance moved since the frame before, 0 for the first. A frame
    is a beat if it is slower than every other within `radius` frames; neither end of a clip is one, and a body at rest
    has none.
    Source: Li et al. 2021 (arXiv:2101.08779), whose github.com/google-research/mint, tools/calculate_beat_scores.py,
    has radius 10 and no smoothing at 60 frames a second. Bailando (Siyao et al. 2022, arXiv:2203.13055,
    utils/beat_align_score.py) has radius 1 and smoothing 5, and counts frames from 0 where this counts from 1.

    Args:
        fps: Frames a second of the motion, above 0.
        radius: Frames on either side that must be faster, at least 1; 10 at 60 frames a second.
        smoothing: Standard deviation in frames of a Gaussian over the speeds, at least 0; 0 leaves them as they are.

    Raises:
        ValueError: If an argument is out of its range.
    """

    name = "kinematic"

    def __init__(
        self,
        fps: int | float = 60,
        radius: int = 10,
        smoothing: float = 0.0,
    ) -> None:
        if fps <= 0:
            raise ValueError(f"fps: found {fps}, expected above 0; AIST++ has 60")
        if radius < 1:
            raise ValueError(f"radius: found {radius}, expected at least 1; AIST++ uses 10, Bailando 1")
        if smoothing < 0:
            raise ValueError(f"smoothing: found {smoothing}, expected at least 0; AIST++ uses 0, Bailando 5")
        self.fps, self.radius, self.smoothing = fps, radius, smoothing

    def __call__(self, clips: Float[Tensor, "b frames coordinates"]) -> list[Float[Tensor, " _"]]:
        """Beat times of each clip.

        Args:
            clips: (b frames joints*3) positions of joints in any unit of length, not rotations.

        Returns:
            b tensors of rising times in seconds, float64 on the CPU; frame n is at n / fps.

        Raises:
            ValueError: If a clip holds NaN or infinity, or the coordinates are no multiple of 3.
        """
        _check_finite(clips, "motion")
        if clips.shape[2] % 3:
            raise ValueError(f"motion: found {clips.shape[2]} coordinates a frame, expected three for each joint")
        joints = clips.detach().cpu().double().unflatten(2, (-1, 3))
        speeds = joints.diff(dim=1).norm(dim=3).mean(dim=2).numpy()
        return [torch.from_numpy(self._slowest(speed) / self.fps) for speed in speeds]

    def _slowest(self, speed: np.ndarray) -> np.ndarray:
        """Numbers of the frames of locally least speed; `speed` begins with the second frame."""
        from scipy.ndimage import gaussian_filter1d
        from scipy.signal import argrelextrema

        if self.smoothing > 0:
            speed = gaussian_filter1d(speed, self.smoothing)
        return argrelextrema(np.concatenate([[0.0], speed]), np.less, order=self.radius)[0]

    def signature(self) -> str:
        """Name, frame rate, radius and smoothing."""
        smoothing = f"smoothed over {self.smoothing:g} frames" if self.smoothing else "not smoothed"
        return (
            f"{self.name}, mean joint speed at {self.fps:g} frames/s, {smoothing}, minima within {self.radius} frames"
        )


@functools.cache
def _librosa_version() -> str:
    """Version of the installed librosa, read once: it takes a millisecond."""
    return version("librosa")


def _check_finite(clips: Float[Tensor, "b ..."], field: str) -> None:
    broken = ~clips.isfinite().flatten(1).all(1) if len(clips) else clips.new_zeros(0)
    if broken.any():
        raise ValueError(
            f"{field}: {int(broken.sum())} of {len(clips)} clips hold NaN or infinity, expected finite numbers; "
            "check the sampler and the files they come from"
        )
