"""What a dance and its music share: a genre, a tempo, and where in the bar the clip begins."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.seeding import SampleNoise

GENRES = (
    "break",
    "pop",
    "lock",
    "middle hip-hop",
    "LA hip-hop",
    "house",
    "waack",
    "krump",
    "street jazz",
    "ballet jazz",
)
"""The ten genres of AIST++ (Li et al. 2021), in the order of its class indices."""

TEMPI = torch.tensor([[110 + 5 * n if genre == "house" else 80 + 10 * n for n in range(6)] for genre in GENRES])
"""Beats a minute of each genre's six tracks in AIST (Tsuchida et al. 2019), as google-research/mint reads them off the
track's number n: 110 + 5 n for house, 80 + 10 n for all others."""

BEATS_PER_BAR = 4


@dataclass(frozen=True)
class Rhythm:
    """Beat grids of a batch of clips.

    Args:
        genre: (b,) index into `GENRES`.
        tempo: (b,) beats a minute.
        phase: (b,) position in the bar at time 0, in beats, in [0, 4).
    """

    genre: Int[Tensor, " b"]
    tempo: Float[Tensor, " b"]
    phase: Float[Tensor, " b"]

    def beat(self, time: Float[Tensor, " f"]) -> Float[Tensor, "b f"]:
        """Position in beats since the start of the bar that time 0 falls into.

        Args:
            time: (f,) seconds.
        """
        return self.phase[:, None] + self.tempo[:, None] / 60 * time

    def time(self, beat: Float[Tensor, " k"]) -> Float[Tensor, "b k"]:
        """Seconds at which positions are reached, the inverse of `beat`.

        Args:
            beat: (k,) positions in beats.
        """
        return (beat - self.phase[:, None]) * 60 / self.tempo[:, None]


def draw_rhythm(genre: Int[Tensor, " b"], noise: SampleNoise) -> Rhythm:
    """Rhythms with one of the six tempi of their genre and any phase, independent of each other.

    Args:
        genre: (b,) index into `GENRES`.
        noise: Random numbers of these clips.
    """
    tempo, phase = noise.uniform((2,)).unbind(1)
    track = (tempo * TEMPI.shape[1]).long()
    return Rhythm(genre, TEMPI[genre, track].float(), phase * BEATS_PER_BAR)


def num_bars(seconds: float) -> int:
    """Bars that a clip may touch, whatever its rhythm.

    Args:
        seconds: Length of the clip.
    """
    beats = BEATS_PER_BAR + seconds * int(TEMPI.max()) / 60
    return int(beats // BEATS_PER_BAR) + 1
