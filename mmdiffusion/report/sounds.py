"""The music that a run wrote, beside the dances that it is for."""

import re
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.data.base import DataModule
from mmdiffusion.metrics.beats import matches_within
from mmdiffusion.metrics.onsets import KinematicBeats, OnsetPeaks
from mmdiffusion.report.page import framed
from mmdiffusion.report.skeleton import Skeleton, skeleton
from mmdiffusion.report.uri import file_uri, sound_uri
from mmdiffusion.types import LabelSpec, MotionSpec, MusicSpec

NAME = re.compile(r"step-(\d+)-(.+)-(\d{5})(?:-label-(\d+))?\.wav")
NUM_CLIPS = 4
TOLERANCE = 0.07
"""Seconds within which beats of music and dance are called together, as is usual for beats."""
NUM_BARS = 240
"""Of the picture of a sound."""
HEIGHT = 680
"""Pixels of a clip in a notebook."""


@dataclass(frozen=True)
class Sound:
    """Music that can be heard.

    Args:
        name: What it is.
        address: The sound itself.
        beats: Seconds, and whether the dance has a beat there as well.
        loudness: Largest amplitude of even parts of the sound, in [0, 1].
    """

    name: str
    address: str
    beats: list[tuple[float, bool]]
    loudness: list[float]

    @property
    def num_together(self) -> int:
        """Beats at which the dance has one as well."""
        return sum(is_together for _, is_together in self.beats)


@dataclass(frozen=True)
class Clip:
    """A piece of music and what it was drawn for.

    Args:
        name: Of the clip.
        step: Training step at which it was drawn.
        seconds: Its length.
        sounds: What was drawn and, where the data have it, the true music.
        skeleton: The dance, where there is one.
    """

    name: str
    step: int
    seconds: float
    sounds: list[Sound]
    skeleton: Skeleton | None

    def _repr_html_(self) -> str:
        """What a notebook shows: the sounds with their beats, and a dancer that follows what plays."""
        return framed("clip.html", {"clips": [self]}, HEIGHT)


def clips(folder: Path, data: DataModule, missing: list[str]) -> list[Clip]:
    """The first pieces that a run wrote last.

    Args:
        folder: Its samples.
        data: Has the dances.
        missing: Is told why dances are missing.
    """
    found = [match for path in sorted(folder.glob("step-*.wav")) if (match := NAME.fullmatch(path.name))]
    last = max((int(match[1]) for match in found), default=0)
    chosen = [match for match in found if int(match[1]) == last][:NUM_CLIPS]
    try:
        rows = data.rows("test", [int(match[3]) for match in chosen]) if chosen else {}
    except ValueError as error:
        missing.append(f"There are no dances beside the music: {error}")
        rows = {}
    return [
        clip(folder, match, data, {name: values[i] for name, values in rows.items()}) for i, match in enumerate(chosen)
    ]


def clip(folder: Path, match: re.Match[str], data: DataModule, row: dict[str, Tensor | str]) -> Clip:
    """One piece, the true one, and the dance of both.

    Args:
        folder: Where the file is.
        match: Its name, taken apart.
        data: Says what a row holds.
        row: Of the test split; empty where the data are not there.
    """
    path, label = folder / match.string, data.spec.get("label")
    audio, rate = soundfile.read(path, dtype="float32")
    motion, motion_spec, music, music_spec = (
        row.get("motion"),
        data.spec.get("motion"),
        row.get("music"),
        data.spec.get("music"),
    )
    dance = None
    if isinstance(motion_spec, MotionSpec) and isinstance(motion, Tensor):
        beats = KinematicBeats(motion_spec.fps)(motion[None])[0]
        dance = skeleton(motion.unflatten(1, (-1, 3)), motion_spec.fps, beats.tolist())
    steps = torch.tensor(dance.beats if dance else [])
    sounds = [heard("drawn by the model", file_uri(path), torch.from_numpy(audio), rate, steps)]
    if isinstance(music_spec, MusicSpec) and isinstance(music, Tensor):
        address = sound_uri(music, music_spec.sample_rate)
        sounds.append(heard("the dance's own", address, music, music_spec.sample_rate, steps))
    name = f"{match[2]} {int(match[3])}"
    if match[4] is not None and isinstance(label, LabelSpec):
        name = label.names[int(match[4])] if label.names else f"label {match[4]}"
    return Clip(name, int(match[1]), len(audio) / rate, sounds, dance)


def heard(name: str, address: str, audio: Float[Tensor, " s"], rate: int, steps: Float[Tensor, " _"]) -> Sound:
    """A sound with its beats.

    Args:
        name: What it is.
        address: The sound as text.
        audio: Mono, in [-1, 1].
        rate: Samples a second.
        steps: Beats of the dance, in seconds.
    """
    times = OnsetPeaks(rate)(audio[None])[0]
    together = [matches_within(times[i : i + 1], steps.double(), TOLERANCE)[2] > 0 for i in range(len(times))]
    size = max(1, len(audio) // NUM_BARS)
    loudness = audio[: size * NUM_BARS].abs().unflatten(0, (-1, size)).amax(1)
    return Sound(name, address, list(zip(times.tolist(), together, strict=True)), loudness.tolist())
