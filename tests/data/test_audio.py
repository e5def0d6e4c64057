"""Parts of sound files: in place, mono, resampled; sound tracks by a command; loudness."""

import math
import os
import struct
import sys
import wave
from pathlib import Path

import pytest
import torch

from mmdiffusion.data.audio import check_ffmpeg, loudness, read_audio, read_sound_track
from mmdiffusion.data.files import DamagedError
from tests.data.dance_files import tone, write_tone
from tests.helpers import generator


def test_channels_are_averaged(tmp_path):
    write_tone(tmp_path / "a.wav", 1.0, 4000, channels=2)
    made = read_audio(tmp_path / "a.wav", 0.0, 4000, 4000)
    torch.testing.assert_close(made, (tone(1.0, 4000) / 2).float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("start", [0.0, 0.5, 1 / 60, 1.0])
@pytest.mark.parametrize(("stored", "wanted"), [(48000, 22050), (22050, 24000), (4000, 4000)])
def test_a_part_is_the_same_sound_at_the_same_time(tmp_path, start, stored, wanted):
    """The truth is a formula: a sine of 110 Hz, wherever it is read."""
    write_tone(tmp_path / "a.wav", 2.0, stored)
    made = read_audio(tmp_path / "a.wav", start, wanted // 2, wanted)
    time = (round(start * wanted) + torch.arange(wanted // 2).double()) / wanted
    inside = slice(wanted // 50, None)  # where the file itself begins, a resampler has nothing before it
    expected = 0.5 * torch.sin(2 * torch.pi * 110 * time).float()
    torch.testing.assert_close(made[inside], expected[inside], atol=2e-3, rtol=0)


def test_a_short_rest_is_silent_and_a_long_one_is_damage(tmp_path):
    write_tone(tmp_path / "a.wav", 1.0, 4000)
    made = read_audio(tmp_path / "a.wav", 0.55, 2000, 4000)
    assert made[1799] != 0
    assert not made[1800:].any()
    with pytest.raises(DamagedError, match=r"a\.wav: it ends 0\.20 s early: expected 0\.5 s from there on"):
        read_audio(tmp_path / "a.wav", 0.7, 2000, 4000)
    assert read_audio(tmp_path / "a.wav", 0.0, 8000, 4000, shortfall=2.0).shape == (8000,)
    with pytest.raises(DamagedError, match="early"):
        read_audio(tmp_path / "a.wav", 5.0, 2000, 4000, shortfall=2.0)


def many_channels(path):
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 100, b"WAVE", b"fmt ", 16, 1, 200, 4000, 1600000, 400, 16, b"data", 400
    )
    path.write_bytes(header + bytes(400))


def not_finite(path):
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 436, b"WAVE", b"fmt ", 16, 3, 1, 4000, 16000, 4, 32, b"data", 400
    )
    path.write_bytes(header + struct.pack("<100f", *[math.nan] * 100))


def empty(path):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 4000, 0, "NONE", ""))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"no sound"), "Format not recognised"),
        (lambda path: None, "System error"),
        (many_channels, "200 channels of 4000 samples"),
        (not_finite, "not finite"),
        (empty, "early"),
    ],
    ids=["text", "none", "many channels", "not finite", "empty"],
)
def test_what_is_no_sound_is_damaged(tmp_path, write, message):
    write(tmp_path / "a.wav")
    with pytest.raises(DamagedError, match=rf"a\.wav: .*{message}"):
        read_audio(tmp_path / "a.wav", 0.0, 100, 4000)


FFMPEG = f"""#!{sys.executable}
import array, pathlib, sys
words = sys.argv[1:]
source = pathlib.Path(words[words.index("-i") + 1].removeprefix("file:"))
if source.read_bytes() != b"video":
    sys.exit("moov atom not found")
start, seconds, rate = (float(words[words.index(name) + 1]) for name in ("-ss", "-t", "-ar"))
end = min(start + seconds, 1.0)
array.array("f", [i / rate for i in range(round(start * rate), round(end * rate))]).tofile(sys.stdout.buffer)
"""


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A command of that name whose sound tracks last a second and whose samples are their own time."""
    command = tmp_path / "bin" / "ffmpeg"
    command.parent.mkdir()
    command.write_text(FFMPEG)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("ffmpeg")
def test_a_sound_track_is_read_where_it_is_asked_for(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"video")
    made = read_sound_track(tmp_path / "a.mp4", 0.25, 100, 400)
    torch.testing.assert_close(made, 0.25 + torch.arange(100) / 400)
    with pytest.raises(DamagedError, match=r"a\.mp4: it ends 0\.25 s early"):
        read_sound_track(tmp_path / "a.mp4", 1.0, 100, 400)


@pytest.mark.usefixtures("ffmpeg")
def test_what_ffmpeg_cannot_read_is_damaged_in_its_words(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"other")
    with pytest.raises(DamagedError, match=r"a\.mp4: moov atom not found"):
        read_sound_track(tmp_path / "a.mp4", 0.0, 100, 400)


def test_without_ffmpeg_the_remedy_is_said(monkeypatch):
    monkeypatch.setenv("PATH", str(Path("/nowhere")))
    with pytest.raises(ValueError, match=r"no command ffmpeg.*ffmpeg -i VIDEO\.mp4 -vn MUSIC\.wav"):
        check_ffmpeg()


def test_loudness_has_the_peak_of_the_public_code():
    clip = torch.tensor([0.1, -0.2])
    torch.testing.assert_close(loudness(clip, (0.3, 1.0), None), torch.tensor([0.475, -0.95]))
    factors = [float(loudness(clip, (0.3, 1.0), generator(seed)).abs().max()) / 0.95 for seed in range(200)]
    assert 0.3 <= min(factors) < 0.35
    assert 0.95 < max(factors) <= 1.0
    assert loudness(clip, None, generator()) is clip
    silence = torch.zeros(3)
    assert loudness(silence, (0.3, 1.0), None) is silence
