"""Pieces against their patterns, read step by step."""

import pytest
import torch

from mmdiffusion.codecs.instruments import BAND
from mmdiffusion.data.composition import SONGS, compose
from mmdiffusion.data.rhythm import GENRES, draw_rhythm
from mmdiffusion.seeding import SampleNoise

CLIPS = 200
SECONDS = 6.0


@pytest.fixture(scope="module")
def rhythm():
    return draw_rhythm(torch.arange(CLIPS) % 10, SampleNoise(0, range(CLIPS)))


@pytest.fixture(scope="module")
def pieces(rhythm):
    return compose(rhythm, SampleNoise(1, range(CLIPS)), SECONDS)


def heard(piece, voice):
    """Digit of a voice at each of its onsets, by start in seconds."""
    digits = {pitch: i for i, sound in enumerate(BAND[voice].sounds, start=1) for pitch in sound.pitches}
    return {round(note.start, 4): digits[note.pitch] for note in piece.instruments[voice].notes}


def written(rhythm, clip, pattern):
    """The same, from a pattern repeated over the clip."""
    tempo, phase = float(rhythm.tempo[clip]), float(rhythm.phase[clip])
    times = {step: (step / 4 - phase) * 60 / tempo for step in range(16 * 6)}
    return {
        round(time, 4): int(pattern[step % 16])
        for step, time in times.items()
        if 0 <= time < SECONDS and pattern[step % 16] != "."
    }


def close(a, b):
    return len(a) == len(b) and all(
        abs(s - t) < 1e-3 and a[s] == b[t] for s, t in zip(sorted(a), sorted(b), strict=True)
    )


@pytest.mark.parametrize("genre", GENRES)
def test_patterns_are_sixteen_steps_of_sounds_the_voice_has(genre):
    for voice, versions in zip(BAND, SONGS[genre], strict=True):
        for pattern in versions:
            assert len(pattern) == 16
            assert set(pattern) <= {".", *map(str, range(1, 1 + len(voice.sounds)))}


@pytest.mark.parametrize("genre", GENRES)
def test_something_starts_on_every_beat_whichever_versions_are_played(genre):
    for beat in (0, 4, 8, 12):
        assert any(all(version[beat] != "." for version in versions) for versions in SONGS[genre])


@pytest.mark.parametrize("voice", [0, 1, 3, 4])
def test_voices_play_one_of_their_patterns_on_the_beats_of_the_clip(rhythm, pieces, voice):
    for clip, piece in enumerate(pieces):
        versions = SONGS[GENRES[clip % 10]][voice]
        assert any(close(heard(piece, voice), written(rhythm, clip, version)) for version in versions)


def test_cymbals_differ_from_their_pattern_only_between_the_eighths(rhythm, pieces):
    changed = total = 0
    for clip, piece in enumerate(pieces):
        times = written(rhythm, clip, "1" * 16)
        on_eighths = written(rhythm, clip, "1." * 8)
        versions = SONGS[GENRES[clip % 10]][2]
        found = heard(piece, 2)
        eighths = {t: d for t, d in found.items() if min(abs(t - e) for e in on_eighths) < 1e-3}
        patterns = [
            v
            for v in versions
            if close(
                eighths,
                {t: d for t, d in written(rhythm, clip, v).items() if min(abs(t - e) for e in on_eighths) < 1e-3},
            )
        ]
        assert patterns
        changed += min(len(found.keys() ^ written(rhythm, clip, v).keys()) for v in patterns)
        total += len(times) - len(on_eighths)
    assert 0.04 < changed / total < 0.1


def test_pieces_vary_for_one_dance(rhythm, pieces):
    others = compose(rhythm, SampleNoise(2, range(CLIPS)), SECONDS)
    same = sum(
        all(heard(a, voice) == heard(b, voice) for voice in range(5)) for a, b in zip(pieces, others, strict=True)
    )
    assert same < 0.1 * CLIPS
