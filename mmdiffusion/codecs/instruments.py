"""A band of five voices: the MIDI notes they write, and what these sound like, as sums of sines and noise.

A waveform is a function of the time since the onset (seconds, shape (s,)). Noise is drawn from a fixed generator, so a
sound is the same at every stroke and on every machine.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Waveform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sound:
    """One thing a voice can play.

    Args:
        name: What it is.
        pitches: MIDI notes that start together; General MIDI's drum map for drums.
        seconds: Length of the notes, and of the waveform.
        waveform: Seconds since the onset to amplitude.
    """

    name: str
    pitches: tuple[int, ...]
    seconds: float
    waveform: Waveform

    def samples(self, sample_rate: int) -> Float[Tensor, " s"]:
        """The sound as audio; it fades to zero over its last fifth.

        Args:
            sample_rate: Samples a second.
        """
        count = round(self.seconds * sample_rate)
        fade = (5 * (1 - torch.arange(count) / count)).clamp(max=1)
        return self.waveform(torch.arange(count) / sample_rate) * fade


@dataclass(frozen=True)
class Voice:
    """A player who plays one sound at a time.

    Args:
        name: Name of the voice.
        program: General MIDI program (0 to 127); `None` for drums.
        sounds: What it can play. No pitch belongs to two sounds of one program.
    """

    name: str
    program: int | None
    sounds: tuple[Sound, ...]


def decay(time: Tensor, half_life: float) -> Tensor:
    """Amplitude that halves every `half_life` seconds."""
    return torch.exp2(-time / half_life)


def noise(time: Tensor) -> Tensor:
    """White noise in [-1, 1], always the same."""
    return 2 * torch.rand(time.shape, generator=torch.Generator().manual_seed(0)) - 1


def hiss(time: Tensor) -> Tensor:
    """The highest part of the noise, in [-1, 1]: differences of neighbours, four times over."""
    wave = noise(time)
    for _ in range(4):
        wave = wave - wave.roll(1)
    return wave / 16


def tone(time: Tensor, pitches: tuple[int, ...], harmonics: int, half_life: float) -> Tensor:
    """Plucked notes: harmonics that fall off as 1/h, and the noise of the pluck."""
    waves = [
        torch.sin(2 * math.pi * 440 * 2 ** ((pitch - 69) / 12) * h * time) / h
        for pitch in pitches
        for h in range(1, harmonics + 1)
    ]
    return 2 * torch.stack(waves).mean(0) * decay(time, half_life) + 0.4 * noise(time) * decay(time, 0.003)


def kick(time: Tensor) -> Tensor:
    """A sine that falls from 160 to 50 Hz, with a click."""
    cycles = 50 * time + 110 * 0.025 * (1 - torch.exp(-time / 0.025))
    return 0.6 * torch.sin(2 * math.pi * cycles) * decay(time, 0.05) + 0.45 * noise(time) * decay(time, 0.005)


def snare(time: Tensor) -> Tensor:
    """Noise over a drum head of 190 Hz."""
    return 0.5 * noise(time) * decay(time, 0.03) + 0.3 * torch.sin(2 * math.pi * 190 * time) * decay(time, 0.03)


def clap(time: Tensor) -> Tensor:
    """Hands that do not quite meet: three bursts of noise within 20 ms."""
    bursts = [(time >= start) * decay((time - start).clamp(min=0), half) for start, half in _CLAPS]
    return 0.4 * noise(time) * torch.stack(bursts).amax(0)


_CLAPS = ((0.0, 0.004), (0.01, 0.004), (0.02, 0.04))
"""Start and half-life of each burst in seconds."""


def closed_hat(time: Tensor) -> Tensor:
    """A short hiss."""
    return 0.6 * hiss(time) * decay(time, 0.01)


def open_hat(time: Tensor) -> Tensor:
    """A long hiss."""
    return 0.6 * hiss(time) * decay(time, 0.04)


def _bass(name: str, pitch: int) -> Sound:
    return Sound(name, (pitch,), 0.3, lambda time: 0.35 * tone(time, (pitch,), harmonics=5, half_life=0.1))


def _chord(name: str, *pitches: int) -> Sound:
    return Sound(name, pitches, 0.35, lambda time: 0.4 * tone(time, pitches, harmonics=4, half_life=0.1))


BAND = (
    Voice("kick", None, (Sound("kick", (36,), 0.25, kick),)),
    Voice("backbeat", None, (Sound("snare", (38,), 0.2, snare), Sound("clap", (39,), 0.2, clap))),
    Voice("cymbal", None, (Sound("closed hat", (42,), 0.08, closed_hat), Sound("open hat", (46,), 0.25, open_hat))),
    Voice("bass", 38, (_bass("A1", 33), _bass("E2", 40), _bass("A2", 45))),
    Voice("chord", 4, (_chord("A minor", 57, 60, 64), _chord("G major", 55, 59, 62))),
)
"""Voices in the order of the digits of a code, lowest first."""
