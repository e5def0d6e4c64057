"""Files read back by other libraries."""

import pytest
import soundfile
import torch
from pretty_midi import Instrument, Note, PrettyMIDI

from mmdiffusion.codecs import write_midi, write_wav


def test_wav_comes_back(tmp_path):
    audio = torch.sin(torch.linspace(0, 100, 2000))
    write_wav(tmp_path / "a.wav", audio, 16000)
    samples, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == 16000
    assert samples.shape == (2000,)
    assert (torch.from_numpy(samples) * 32768 / 32767 - audio).abs().max() <= 0.5 / 32767 + 1e-6


def test_midi_comes_back(tmp_path):
    music, instrument = PrettyMIDI(), Instrument(38)
    instrument.notes.append(Note(100, 40, 0.5, 0.75))
    music.instruments.append(instrument)
    write_midi(tmp_path / "a.mid", music)
    (read,) = PrettyMIDI(str(tmp_path / "a.mid")).instruments
    assert (read.program, read.is_drum, read.notes[0].pitch) == (38, False, 40)
    assert read.notes[0].start == pytest.approx(0.5, abs=2e-3)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(0), "a.wav: audio is empty, expected at least one sample"),
        (torch.tensor([0.5, -1.5]), r"a.wav: audio reaches 1.5, expected numbers in \[-1, 1\]"),
        (torch.tensor([0.5, float("nan")]), "a.wav: audio reaches nan"),
    ],
)
def test_what_is_no_audio_is_refused(tmp_path, audio, message):
    with pytest.raises(ValueError, match=message):
        write_wav(tmp_path / "a.wav", audio, 16000)
    assert not (tmp_path / "a.wav").exists()


def test_silence_is_audio(tmp_path):
    write_wav(tmp_path / "a.wav", torch.zeros(100), 16000)
    samples, _ = soundfile.read(tmp_path / "a.wav")
    assert len(samples) == 100
    assert not samples.any()


def test_a_file_without_a_sample_rate_is_not_begun(tmp_path):
    with pytest.raises(ValueError, match=r"a\.wav: sample_rate is 0, expected at least 1 sample a second"):
        write_wav(tmp_path / "a.wav", torch.zeros(100), 0)
    assert not (tmp_path / "a.wav").exists()
