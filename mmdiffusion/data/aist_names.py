"""What the name of an AIST++ sequence tells: genre, dancer, music, tempo, and how long it lasts."""

import re
from dataclasses import dataclass

from mmdiffusion.data.rhythm import TEMPI

FPS = 60
CODES = ("BR", "PO", "LO", "MH", "LH", "HO", "WA", "KR", "JS", "JB")
"""Letters of the genres, in the order of `rhythm.GENRES`."""
NUM_BEATS = {"BM": 16, "FM": 64}
"""Beats that a basic and an advanced dance last.

Derived: with them, the 980 names of the cross-modal training split give the published numbers of segments, 6,632 of two
seconds and 2,581 of six, and the 20 of the test split 86 and 36.
"""
_PATTERN = re.compile(r"g([A-Z]{2})_s(BM|FM)_c(All|\d\d)_d(\d\d)_m([A-Z]{2})([0-5])_ch(\d\d)")


@dataclass(frozen=True)
class DanceName:
    """One sequence, as its name describes it: `gBR_sBM_cAll_d04_mBR0_ch01`.

    Attributes:
        text: The name.
        genre: Index into `rhythm.GENRES`.
        situation: `BM`, basic moves, or `FM`, advanced ones.
        dancer: Number of the dancer.
        music: The piece, `mBR0`.
        choreography: Number of the choreography.
        tempo: Beats a minute of the piece.
    """

    text: str
    genre: int
    situation: str
    dancer: int
    music: str
    choreography: int
    tempo: int

    @property
    def num_frames(self) -> int:
        """Frames that the dance lasts by its beats; a file may have a few more or fewer."""
        return NUM_BEATS[self.situation] * 60 * FPS // self.tempo

    def seen_by(self, camera: int) -> str:
        """Name of a video of this dance, such as that of camera 1, `gBR_sBM_c01_d04_mBR0_ch01`."""
        return re.sub(r"_c(All|\d\d)_", f"_c{camera:02}_", self.text)


def parse_name(text: str) -> DanceName:
    """Read the name of a sequence, or of a video of it.

    Args:
        text: The name, without an extension.

    Raises:
        ValueError: if it is none.
    """
    found = _PATTERN.fullmatch(text)
    if found is None or not {found[1], found[5]} <= set(CODES):
        raise ValueError(f"{text!r} is no name of an AIST++ sequence: expected such as gBR_sBM_cAll_d04_mBR0_ch01")
    genre, situation, _, dancer, kind, piece, choreography = found.groups()
    tempo = int(TEMPI[CODES.index(kind), int(piece)])
    music = f"m{kind}{piece}"
    return DanceName(text, CODES.index(genre), situation, int(dancer), music, int(choreography), tempo)
