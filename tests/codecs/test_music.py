"""Tokens, notes and audio of the symbolic codec; librosa listens to what it renders."""

import itertools

import librosa
import pytest
import torch
from pretty_midi import Instrument, Note, PrettyMIDI

from mmdiffusion.codecs import SymbolicCodec, write_midi
from mmdiffusion.types import MusicSpec, TokenSpec

SLOT = 0.05
NUM_CODES = 216
DRUMS = {"kick": 36, "snare": 38, "clap": 39, "closed": 42, "open": 46}


@pytest.fixture(scope="module")
def codec():
    return SymbolicCodec()


def random_tokens(codec, clips=3, density=1.0):
    generator = torch.Generator().manual_seed(0)
    shape = (clips, codec.length)
    tokens = torch.randint(0, codec.latent.num_codes, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < density, tokens, 0)


def all_codes():
    """Every code, 110 and 106 of them in two clips of 6 s."""
    return torch.arange(240).reshape(2, 120) % NUM_CODES


def piece(*notes):
    """Music of (program or None for drums, pitch, start)."""
    midi = PrettyMIDI()
    for program, pitch, start in notes:
        instrument = Instrument(program or 0, is_drum=program is None)
        instrument.notes.append(Note(100, pitch, start, start + 0.1))
        midi.instruments.append(instrument)
    return midi


def at(slot):
    return (slot + 0.5) * SLOT


# Tokens and notes ------------------------------------------------------------------------------------------------


def test_specs(codec):
    assert codec.latent == TokenSpec(num_codes=NUM_CODES, grid=(120,))
    assert codec.audio == MusicSpec(num_samples=132300, sample_rate=22050)


def test_every_code_comes_back(codec):
    assert all_codes().unique().tolist() == list(range(NUM_CODES))
    assert torch.equal(codec.encode(codec.decode(all_codes())), all_codes())


def test_every_code_comes_back_from_midi_files(codec, tmp_path):
    files = [tmp_path / f"{i}.mid" for i in range(2)]
    for file, music in zip(files, codec.decode(all_codes()), strict=True):
        write_midi(file, music)
    assert torch.equal(codec.encode([PrettyMIDI(str(file)) for file in files]), all_codes())


def test_code_is_a_number_with_a_digit_for_each_voice(codec):
    """Digits 1 2 1 3 2 in bases 2 3 3 4 3, counted by hand: all combinations in order, the kick fastest."""
    combinations = [digits[::-1] for digits in itertools.product(range(3), range(4), range(3), range(3), range(2))]
    chord = [(4, pitch, at(7)) for pitch in (55, 59, 62)]
    music = piece((None, 36, at(7)), (None, 39, at(7)), (None, 42, at(7)), (38, 45, at(7)), *chord)
    expected = torch.zeros(1, 120, dtype=torch.int64)
    expected[0, 7] = combinations.index((1, 2, 1, 3, 2))
    assert torch.equal(codec.encode([music]), expected)


@pytest.mark.parametrize(("start", "slot"), [(0.0, 0), (0.049, 0), (0.051, 1), (3.0251, 60), (5.999, 119)])
def test_note_falls_into_the_slot_of_its_start(codec, start, slot):
    tokens = codec.encode([piece((None, 36, start))])
    assert tokens.nonzero().tolist() == [[0, slot]]


def test_decoded_note_starts_within_half_a_slot(codec):
    starts = torch.rand(100, generator=torch.Generator().manual_seed(0)).double() * 6
    decoded = codec.decode(codec.encode([piece((None, 36, start)) for start in starts.tolist()]))
    found = torch.tensor([music.instruments[0].notes[0].start for music in decoded], dtype=torch.float64)
    assert (found - starts).abs().max() <= SLOT / 2


def test_notes_of_a_voice_never_overlap_and_end_within_the_clip(codec):
    for music in codec.decode(random_tokens(codec)):
        for instrument in music.instruments:
            for pitch in {note.pitch for note in instrument.notes}:
                notes = sorted((n for n in instrument.notes if n.pitch == pitch), key=lambda note: note.start)
                assert all(a.start < a.end <= b.start for a, b in itertools.pairwise(notes))
            assert max(note.end for note in instrument.notes) <= 6


def test_zeros_are_a_clip_without_notes(codec):
    (music,) = codec.decode(torch.zeros(1, 120, dtype=torch.int64))
    assert not [note for instrument in music.instruments for note in instrument.notes]


def test_other_grids():
    codec = SymbolicCodec(seconds=2.0, tokens_per_second=25, sample_rate=16000)
    assert codec.latent == TokenSpec(NUM_CODES, (50,))
    tokens = random_tokens(codec)
    assert torch.equal(codec.encode(codec.decode(tokens)), tokens)
    assert codec.render(tokens).shape == (3, 32000)


# Audio -----------------------------------------------------------------------------------------------------------


def test_audio_is_a_function_of_each_clip(codec):
    tokens = random_tokens(codec)
    audio = codec.render(tokens)
    assert audio.shape == (3, 132300)
    assert audio.abs().max() <= 1
    assert audio.abs().amax(1).min() > 0.3
    for i in range(3):
        assert torch.equal(codec.render(tokens[i : i + 1])[0], audio[i])


def test_rendering_leaves_the_global_random_state_alone(codec):
    before = torch.get_rng_state()
    codec.render(random_tokens(codec))
    assert torch.equal(torch.get_rng_state(), before)


def test_zeros_are_silent(codec):
    assert codec.render(torch.zeros(2, 120, dtype=torch.int64)).abs().max() == 0


@pytest.mark.parametrize("code", [1, 2, 4, 6, 12, 18, 36, 54, 72, 144])
def test_a_sound_starts_in_the_middle_of_its_slot(codec, code):
    """One code for each sound of each voice, alone; 36, for one, is the second note of the bass."""
    tokens = torch.zeros(1, 120, dtype=torch.int64)
    tokens[0, 40] = code
    audio = codec.render(tokens)[0]
    start = round(at(40) * 22050)
    assert audio[:start].abs().max() == 0
    assert audio[start : start + 220].abs().max() > 0.05
    assert librosa.onset.onset_detect(y=audio.numpy(), units="time") == pytest.approx([at(40)], abs=0.03)


# Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.01}, r"seconds is 0.01: shorter than a token, expected at least 0.05"),
        ({"seconds": float("nan")}, r"seconds is nan: expected the length of a clip"),
        ({"seconds": float("inf")}, r"seconds is inf: expected the length of a clip"),
        ({"seconds": -1.0}, r"seconds is -1.0: shorter than a token"),
        ({"seconds": 1.03}, r"seconds is 1.03: expected a multiple of 0.05"),
        ({"tokens_per_second": 0}, r"tokens_per_second is 0, sample_rate is 22050: expected at least 1"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SymbolicCodec(**options)


@pytest.mark.parametrize(
    ("music", "message"),
    [
        (PrettyMIDI(), r"music\[0\] is silent: expected at least one note"),
        (piece((None, 36, 6.0)), r"music\[0\]: the note of pitch 36 at 6.000 s is outside the clip"),
        (piece((None, 49, 1.0)), r"pitch 49 at 1.000 s, played by the drums, has no code: expected one of kick"),
        (piece((0, 36, 1.0)), r"pitch 36 at 1.000 s, played by program 0, has no code"),
        (piece((None, 38, 1.0), (None, 39, 1.01)), r"the backbeat starts pitches \[38, 39\] together at 1.000 s"),
        (piece((4, 57, 1.0)), r"the chord starts pitches \[57\] together at 1.000 s"),
    ],
)
def test_music_without_a_code_is_refused(codec, music, message):
    with pytest.raises(ValueError, match=message):
        codec.encode([music])


@pytest.mark.parametrize("call", ["decode", "render"])
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.full((1, 120), NUM_CODES), r"tokens has 216, outside the codebook: expected 0 to 215"),
        (torch.full((1, 120), -1), r"tokens has -1, outside the codebook"),
        (torch.zeros(1, 119, dtype=torch.int64), r"tokens has 119 a clip: expected 120 for 6.0 s"),
        (torch.zeros(1, 0, dtype=torch.int64), r"tokens has 0 a clip"),
    ],
)
def test_tokens_that_are_no_music_are_refused(codec, call, tokens, message):
    with pytest.raises(ValueError, match=message):
        getattr(codec, call)(tokens)
