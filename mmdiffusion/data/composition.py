"""Composing: drums, bass and chords for a rhythm, from the patterns of its genre.

A pattern is one bar of sixteenths: a digit starts that sound of the voice (see `codecs.instruments.BAND`), a dot rests.
A clip takes one of two patterns for each voice at random, and its cymbals leave out or add hats between the eighths, so
many pieces fit one dance. In every genre something starts on every beat.
"""

from typing import NamedTuple

import torch
from pretty_midi import Instrument, Note, PrettyMIDI
from torch import Tensor

from mmdiffusion.codecs.instruments import BAND
from mmdiffusion.data.rhythm import BEATS_PER_BAR, GENRES, Rhythm, num_bars
from mmdiffusion.seeding import SampleNoise

STEPS_PER_BEAT = 4
_FILL_RATE = 0.08
"""Share of the sixteenths between the eighths where the cymbal does the opposite of its pattern."""
_VELOCITY = 100


class Song(NamedTuple):
    """Two patterns for each voice of the band, in its order."""

    kick: tuple[str, str]
    backbeat: tuple[str, str]
    cymbal: tuple[str, str]
    bass: tuple[str, str]
    chord: tuple[str, str]


_NOTHING = "................"

SONGS = {
    "break": Song(  # a break beat: kicks pushed off the beat, ghost notes on the snare
        kick=("1.1.......11....", "1.1.....1.1....."),
        backbeat=("....1..1.1..1..1", "....1..1.1..1..."),
        cymbal=("1.1.1.1.1.1.1.1.", "1.1.1.1.1.1.1.2."),
        bass=("1..1......2.....", "1..1....3.2....."),
        chord=(_NOTHING, "......1........."),
    ),
    "pop": Song(  # electro funk: claps, hats on the off-beats
        kick=("1.....1.1.......", "1.....1.1..1...."),
        backbeat=("....2.......2...", "....2.......2..2"),
        cymbal=("..1...1...1...1.", "..1...1...1.1.1."),
        bass=("1..3..1.1..3..1.", "1..3..1.1..3..3."),
        chord=("......1.......1.", "......1.......2."),
    ),
    "lock": Song(  # funk: sixteenths on the hat, busy octaves in the bass
        kick=("1..1....1..1....", "1..1......1.1..."),
        backbeat=("....1.......1...", "....1..1....1..."),
        cymbal=("1111111111111111", "1111112111111121"),
        bass=("1.13..1.2.23..1.", "1.13..3.2.23..3."),
        chord=("...1..1....1..1.", "...1..1....2..2."),
    ),
    "middle hip-hop": Song(  # boom bap
        kick=("1......1..1.....", "1......1..11...."),
        backbeat=("....1.......1...", "....1.......1..1"),
        cymbal=("1.1.1.1.1.1.1.1.", "1.1.1.1.1.1.1.1."),
        bass=("1.........3.....", "1......1..3....."),
        chord=("1...............", "1.......2......."),
    ),
    "LA hip-hop": Song(  # half time: the clap on three, rolling hats
        kick=("1.....1.......1.", "1.....1....1..1."),
        backbeat=("........2.......", "........2......2"),
        cymbal=("1.1.111.1.1.1111", "1.111.1.1.111.11"),
        bass=("1.....1.......2.", "1.....1....1..2."),
        chord=(_NOTHING, "............1..."),
    ),
    "house": Song(  # four on the floor, open hats and stabs between
        kick=("1...1...1...1...", "1...1...1...1..1"),
        backbeat=("....2.......2...", "....2.......2..."),
        cymbal=("..2...2...2...2.", "..2...2...2.1.2."),
        bass=("1.....1.1.....3.", "1.....1.2.....3."),
        chord=("1..1......1..1..", "1..1......2..2.."),
    ),
    "waack": Song(  # disco: four on the floor, snare, octaves in the bass
        kick=("1...1...1...1...", "1...1...1...1.1."),
        backbeat=("....1.......1...", "....1.......1..."),
        cymbal=("1.2.1.2.1.2.1.2.", "112.112.112.112."),
        bass=("1.3.1.3.2.3.2.3.", "1.3.1.3.1.3.2.3."),
        chord=("1...............", "1.......2......."),
    ),
    "krump": Song(  # heavy kicks, stabs on every beat, no hats
        kick=("1..1..1.1..1..1.", "1..1..1.1.1..11."),
        backbeat=("....1.......1...", "....1.......1.1."),
        cymbal=(_NOTHING, "............2..."),
        bass=("1.......1.......", "1.......2......."),
        chord=("1...1...1...1...", "1...1...2...2..."),
    ),
    "street jazz": Song(  # claps over a walking bass
        kick=("1.......1.......", "1.......1.1....."),
        backbeat=("....2.......2...", "....2.2.....2..."),
        cymbal=("1...1...1...1...", "1...1...1...1.1."),
        bass=("1...2...3...2...", "1...3...2...3..."),
        chord=("..1...1...2...2.", "..1...1...1...2."),
    ),
    "ballet jazz": Song(  # chords and bass in turn, hardly a drum
        kick=(_NOTHING, "1..............."),
        backbeat=(_NOTHING, _NOTHING),
        cymbal=(_NOTHING, "........2......."),
        bass=("1.......2.......", "1.......3......."),
        chord=("1...1...2...2...", "1...1...2.2.1..."),
    ),
}


def compose(rhythm: Rhythm, noise: SampleNoise, seconds: float) -> list[PrettyMIDI]:
    """Music for rhythms, one piece each.

    Args:
        rhythm: Genre, tempo and phase of b clips.
        noise: Random numbers of these clips: choice of patterns and fills.
        seconds: Length of the pieces; no note starts later.
    """
    bars = num_bars(seconds)
    versions = (2 * noise.uniform((len(BAND),))).long()
    scores = _SCORES[rhythm.genre[:, None], versions, torch.arange(len(BAND))].repeat(1, 1, bars)
    fills = noise.uniform((scores.shape[-1],)) < _FILL_RATE
    fills[:, ::2] = False
    cymbals = scores[:, _CYMBAL]
    scores[:, _CYMBAL] = torch.where(fills, (cymbals == 0).long(), cymbals)
    times = rhythm.time(torch.arange(scores.shape[-1]) / STEPS_PER_BEAT)
    return [_piece(score, time, seconds) for score, time in zip(scores, times, strict=True)]


def _piece(score: Tensor, time: Tensor, seconds: float) -> PrettyMIDI:
    """Notes of a score (voices, steps) whose steps are at these times; what lies outside the clip is left out."""
    midi = PrettyMIDI()
    within = (time >= 0) & (time < seconds)
    for voice, line in zip(BAND, score, strict=True):
        instrument = Instrument(voice.program or 0, is_drum=voice.program is None, name=voice.name)
        for start, digit in zip(time[within].tolist(), line[within].tolist(), strict=True):
            if digit:
                sound = voice.sounds[digit - 1]
                end = start + sound.seconds
                instrument.notes += [Note(_VELOCITY, pitch, start, end) for pitch in sound.pitches]
        midi.instruments.append(instrument)
    return midi


def _steps(pattern: str) -> list[int]:
    return [0 if step == "." else int(step) for step in pattern]


_CYMBAL = Song._fields.index("cymbal")
_SCORES = torch.tensor([[[_steps(voice[version]) for voice in SONGS[genre]] for version in (0, 1)] for genre in GENRES])
"""(genres, versions, voices, steps of a bar): 0 rests, i starts the voice's i-th sound."""
assert _SCORES.shape == (len(GENRES), 2, len(BAND), BEATS_PER_BAR * STEPS_PER_BEAT)
