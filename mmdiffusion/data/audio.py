"""Parts of sound files, mono, at the sample rate that is wanted."""

import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.data.files import DamagedError

PEAK = 0.95
"""Largest sample of a clip whose loudness is set, as in the public code of D2M-GAN and CDCD."""
_MOST_CHANNELS, _MOST_RATE = 8, 384_000
_MARGIN = 0.05
"""Seconds read on either side of a part, longer than the filter of the resampler."""
SHORTFALL = 0.1
"""Seconds of silence that a part is filled up with where nothing else is said."""
_PATIENCE = 60
"""Seconds that ffmpeg may take for one part."""


def read_audio(
    path: Path, start: float, num_samples: int, sample_rate: int, shortfall: float = SHORTFALL
) -> Float[Tensor, " s"]:
    """Part of a sound file: only what is needed is read, channels are averaged, and the part is resampled.

    Args:
        path: A file that libsndfile reads: wav, flac, ogg, mp3.
        start: Seconds before the part.
        num_samples: Its samples.
        sample_rate: Their rate, a second.
        shortfall: Seconds at the end that may be missing; they are silent then.

    Returns:
        (s,) in [-1, 1].

    Raises:
        DamagedError: if the file cannot be read, or more is missing.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            _check_form(path, file.channels, rate)
            unit = rate // math.gcd(rate, sample_rate)  # lasts a whole number of new samples
            first = max(0, int((start - _MARGIN) * rate) // unit * unit)
            last = math.ceil((start + num_samples / sample_rate + _MARGIN) * rate)
            file.seek(min(first, file.frames))
            stored = file.read(last - first, "float32", always_2d=True).mean(1)
    except (OSError, RuntimeError) as error:
        raise DamagedError(path, error) from error
    samples = _resample(stored, rate, sample_rate)
    skipped = round(start * sample_rate) - first * sample_rate // rate
    return _filled(samples[skipped : skipped + num_samples], num_samples, path, sample_rate, shortfall)


def read_sound_track(path: Path, start: float, num_samples: int, sample_rate: int) -> Float[Tensor, " s"]:
    """Part of the sound track of a video, by the command `ffmpeg`; otherwise as `read_audio`.

    Args:
        path: The video.
        start: Seconds before the part.
        num_samples: Its samples.
        sample_rate: Their rate, a second.

    Raises:
        DamagedError: if ffmpeg cannot read it, or it is shorter than that.
    """
    seconds = num_samples / sample_rate
    command = ["ffmpeg", "-v", "error", "-nostdin", "-protocol_whitelist", "file,pipe", "-ss", f"{start:.6f}"]
    command += ["-i", f"file:{path}", "-t", f"{seconds + _MARGIN:.6f}", "-vn", "-ac", "1", "-ar", str(sample_rate)]
    try:
        done = subprocess.run([*command, "-f", "f32le", "-"], capture_output=True, timeout=_PATIENCE, check=True)
    except subprocess.CalledProcessError as error:
        raise DamagedError(path, error.stderr.decode(errors="replace").strip() or error) from error
    except subprocess.TimeoutExpired as error:
        raise DamagedError(path, error) from error
    samples = np.frombuffer(done.stdout[: len(done.stdout) // 4 * 4], dtype="<f4")[:num_samples]
    return _filled(samples, num_samples, path, sample_rate, SHORTFALL)


def check_ffmpeg() -> None:
    """Check that sound tracks can be read.

    Raises:
        ValueError: if there is no command `ffmpeg`.
    """
    if shutil.which("ffmpeg") is None:
        raise ValueError(
            "videos is given, but there is no command ffmpeg to read sound tracks with: install ffmpeg, or turn them "
            "into files elsewhere (ffmpeg -i VIDEO.mp4 -vn MUSIC.wav) and give their folder as music"
        )


def loudness(
    clip: Float[Tensor, " s"], gain: tuple[float, float] | None, generator: torch.Generator | None
) -> Float[Tensor, " s"]:
    """Set how loud a clip is; silence stays silence.

    Args:
        clip: Samples.
        gain: Range of the factor after the peak is set to 0.95; `None` leaves the clip as it is.
        generator: Source of the factor; `None` takes 1, as in validation.
    """
    peak = float(clip.abs().max())
    if gain is None or peak == 0:
        return clip
    low, high = gain if generator is not None else (1.0, 1.0)
    factor = low + (high - low) * float(torch.rand((), generator=generator))
    return clip * (PEAK * factor / peak)


def _check_form(path: Path, channels: int, rate: int) -> None:
    if channels > _MOST_CHANNELS or not 1 <= rate <= _MOST_RATE:
        raise DamagedError(
            path,
            f"it has {channels} channels of {rate} samples a second: expected at most {_MOST_CHANNELS} of {_MOST_RATE}",
        )


def _resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    import soxr  # what librosa resamples with, without the code that librosa compiles first

    return samples if rate == wanted or not len(samples) else soxr.resample(samples, rate, wanted)


def _filled(samples: np.ndarray, num_samples: int, path: Path, rate: int, shortfall: float) -> Float[Tensor, " s"]:
    """Samples with silence behind them, where little is missing."""
    missing = num_samples - len(samples)
    if missing > shortfall * rate or not len(samples):
        raise DamagedError(
            path, f"it ends {missing / rate:.2f} s early: expected {num_samples / rate:g} s from there on"
        )
    if not np.isfinite(samples).all():
        raise DamagedError(path, "it has samples that are not finite")
    return torch.from_numpy(np.pad(samples, (0, missing)).astype(np.float32)).clamp(-1, 1)
