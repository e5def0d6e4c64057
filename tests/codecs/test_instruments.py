"""The sounds of the band, measured in their spectra."""

import math

import pytest
import torch

from mmdiffusion.codecs.instruments import BAND, decay

RATE = 22050
SOUNDS = {sound.name: sound for voice in BAND for sound in voice.sounds}


def spectrum(name):
    """Frequencies in Hz and energies of a sound."""
    samples = SOUNDS[name].samples(RATE)
    energy = torch.fft.rfft(samples, n=RATE).abs() ** 2  # a bin is 1 Hz
    return torch.arange(len(energy)).float(), energy


def centre(name):
    frequency, energy = spectrum(name)
    return float((frequency * energy).sum() / energy.sum())


def hertz(pitch):
    return 440 * 2 ** ((pitch - 69) / 12)


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_is_bounded_fades_out_and_never_changes(name):
    samples = SOUNDS[name].samples(RATE)
    assert len(samples) == round(SOUNDS[name].seconds * RATE)
    assert 0.1 < samples.abs().max() < 1
    assert samples[-10:].abs().max() < 1e-3
    torch.manual_seed(1)
    assert torch.equal(SOUNDS[name].samples(RATE), samples)


@pytest.mark.parametrize("name", ["A1", "E2", "A2", "A minor", "G major"])
def test_notes_have_their_pitch(name):
    frequency, energy = spectrum(name)
    for pitch in SOUNDS[name].pitches:
        near = (frequency - hertz(pitch)).abs() < 25
        peak = frequency[near][energy[near].argmax()]
        assert abs(12 * math.log2(float(peak) / hertz(pitch))) < 0.6


def test_drums_are_dark_and_bright():
    assert centre("kick") < centre("snare") < centre("closed hat")
    assert centre("closed hat") > 8000
    assert SOUNDS["open hat"].samples(RATE).square().sum() > 2 * SOUNDS["closed hat"].samples(RATE).square().sum()


def test_half_life():
    assert decay(torch.tensor([0.0, 0.1, 0.3]), 0.1).tolist() == pytest.approx([1, 0.5, 0.125])


def test_no_note_belongs_to_two_sounds():
    notes = [(voice.program, pitch) for voice in BAND for sound in voice.sounds for pitch in sound.pitches]
    assert len(notes) == len(set(notes))
