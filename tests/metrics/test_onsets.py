"""Detectors find what was put into a clip, by the published rules written out a second time."""

import math
from itertools import pairwise

import librosa
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import argrelextrema

from mmdiffusion.metrics import KinematicBeats, LibrosaBeats, OnsetPeaks, onsets
from tests.metrics.sound import RATE, clicks

TIMES = np.arange(0.3, 4, 0.5)
FRAME = 512 / RATE


# Audio ---------------------------------------------------------------------------------------------------------


def assert_heard_a_little_late(found, times):
    assert len(found) == len(times)
    delay = found.numpy() - times
    assert (delay > 0).all()
    assert (delay < 0.06).all()


@pytest.mark.parametrize("window", [1, 3])
def test_onset_peaks_finds_clicks(window):
    (found,) = OnsetPeaks(RATE, window)(clicks(TIMES)[None])
    assert found.dtype == torch.float64
    assert_heard_a_little_late(found, TIMES)


def test_librosa_beats_finds_a_steady_tempo():
    (found,) = LibrosaBeats(RATE)(clicks(np.arange(0.3, 6, 0.5), seconds=6)[None])
    assert_heard_a_little_late(found, np.arange(0.8, 5.5, 0.5))  # the first and the last beat are trimmed


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_other_sample_rates_are_resampled(rate):
    (found,) = OnsetPeaks(rate)(clicks(TIMES, rate=rate)[None])
    assert_heard_a_little_late(found, TIMES)
    assert f"resampled from {rate} Hz" in OnsetPeaks(rate).signature()
    assert "resampled" not in OnsetPeaks(RATE).signature()


def drums(seed=0):
    """Two seconds of decaying noise hits of random times and loudness over a noise floor."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2 * RATE, generator=generator)
    clip = noise * 0.001
    for start, gain in torch.rand(12, 2, generator=generator).tolist():
        first = int(start * 2 * RATE)
        decay = torch.exp(-torch.arange(2 * RATE - first) / (0.03 * RATE))
        clip[first:] += noise[first:] * decay * gain
    return clip / clip.abs().max()


def peaks_of(strength, window):
    """Onset frames by the rule in words: largest of its windows, 0.2 above their mean, not right after another."""
    found = []
    for n, value in enumerate(strength):
        around = strength[max(0, n - window) : n + window]
        after_another = bool(found) and n == found[-1] + 1
        if not after_another and value == max(around) and value >= np.mean(around) + 0.2:
            found.append(n)
    return found


@pytest.mark.parametrize("window", [1, 3])
def test_onset_peaks_follow_the_published_rule(window):
    clip = drums()
    strength = librosa.onset.onset_strength(y=clip.numpy(), sr=RATE)
    strength = (strength - strength.min()) / np.ptp(strength)
    expected = np.array(peaks_of(strength, window)) * FRAME
    (found,) = OnsetPeaks(RATE, window)(clip[None])
    assert len(found) >= 3
    assert found.numpy() == pytest.approx(expected)


def test_windows_of_cdcd_are_librosas_with_the_scripts_arguments():
    clip = drums(1)
    expected = librosa.onset.onset_detect(
        y=clip.numpy(), sr=RATE, wait=1, delta=0.2, pre_avg=1, post_avg=1, post_max=1, units="time"
    )
    assert OnsetPeaks(RATE)(clip[None])[0].tolist() == expected.tolist()
    assert OnsetPeaks(RATE, 3)(clip[None])[0].tolist() != expected.tolist()


@pytest.mark.parametrize("detector", [OnsetPeaks(RATE), OnsetPeaks(RATE, 3), LibrosaBeats(RATE)])
def test_silence_has_no_beat_and_no_clip_no_list(detector):
    (found,) = detector(torch.zeros(1, RATE))
    assert found.shape == (0,)
    assert found.dtype == torch.float64
    assert detector(torch.zeros(0, RATE)) == []


def test_a_batch_equals_its_clips():
    batch = torch.stack([clicks(TIMES), torch.zeros(4 * RATE), clicks([1.0, 2.25])])
    together = OnsetPeaks(RATE)(batch)
    assert [len(found) for found in together] == [8, 0, 2]
    for clip, found in zip(batch, together, strict=True):
        assert torch.equal(OnsetPeaks(RATE)(clip[None])[0], found)


class Counting(OnsetPeaks):
    """Counts how often it listens."""

    def __init__(self, sample_rate, window=1):
        super().__init__(sample_rate, window)
        self.calls = 0

    def detect(self, clip):
        self.calls += 1
        return super().detect(clip)


def test_the_same_clip_is_heard_once(monkeypatch):
    monkeypatch.setattr(onsets, "_remembered", onsets.OrderedDict())
    clips, first, second = torch.stack([drums(2)[:RATE], drums(3)[:RATE]]), Counting(RATE), Counting(RATE)
    found = first(clips)
    found[0].zero_()
    assert not torch.equal(second(clips)[0], found[0]), "what was handed out is a copy"
    assert (first.calls, second.calls) == (2, 0)
    other = Counting(RATE, window=3)
    other(clips)
    assert other.calls == 2, "another signature hears for itself"


def test_old_clips_are_forgotten(monkeypatch):
    monkeypatch.setattr(onsets, "_remembered", onsets.OrderedDict())
    monkeypatch.setattr(onsets, "NUM_REMEMBERED", 2)
    detector, clips = Counting(RATE), torch.stack([drums(seed)[:RATE] for seed in range(3)])
    detector(clips)
    assert len(onsets._remembered) == 2
    detector(clips[2:])
    assert detector.calls == 3
    detector(clips[:1])
    assert detector.calls == 4


def test_audio_errors_say_what_to_do():
    clips = torch.zeros(3, RATE)
    clips[1, 5] = math.nan
    with pytest.raises(ValueError, match=r"audio: 1 of 3 clips hold NaN"):
        OnsetPeaks(RATE)(clips)
    with pytest.raises(ValueError, match=r"audio: found clips of 0\.0928 s, expected at least 0\.0929 s"):
        OnsetPeaks(RATE)(clips[:1, :2047])
    with pytest.raises(ValueError, match=r"sample_rate: found 0"):
        OnsetPeaks(0)
    with pytest.raises(ValueError, match=r"window: found 0.*CDCD uses 1, LORIS 3"):
        OnsetPeaks(RATE, 0)
    with pytest.raises(ValueError, match=r"start_bpm: found 0"):
        LibrosaBeats(RATE, 0.0)
    assert len(OnsetPeaks(RATE)(clips[:1, :2048])) == 1


def test_signatures_name_what_the_result_depends_on():
    assert OnsetPeaks(RATE, 3).name == "onset3"
    assert OnsetPeaks(RATE).name == "onset"
    assert f"librosa {librosa.__version__}" in OnsetPeaks(RATE).signature()
    detectors = [OnsetPeaks(RATE), OnsetPeaks(8000), OnsetPeaks(RATE, 3), LibrosaBeats(RATE), LibrosaBeats(RATE, 90.0)]
    detectors += [KinematicBeats(), KinematicBeats(30), KinematicBeats(60, 1), KinematicBeats(60.0, 10, 5.0)]
    assert len({detector.signature() for detector in detectors}) == len(detectors)


# Motion --------------------------------------------------------------------------------------------------------


def walk(frames=240, joints=17, seed=0):
    """A smooth random motion (1 frames joints*3)."""
    steps = torch.randn(frames, joints * 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.from_numpy(gaussian_filter(steps.cumsum(0).numpy(), (6, 0)))[None].float()


def speeds(motion):
    """Mean joint speed of each step (frames - 1,), by a loop."""
    joints = motion[0].double().reshape(motion.shape[1], -1, 3).numpy()
    return np.array([np.linalg.norm(b - a, axis=1).mean() for a, b in pairwise(joints)])


def test_kinematic_beats_are_the_turning_points():
    time = torch.arange(240, dtype=torch.float64) / 60
    turns = torch.tensor([0.46, 1.16, 1.86, 2.56, 3.26, 3.96])
    swing = torch.cos(torch.pi * (time - 0.46) / 0.7)
    motion = torch.stack([swing, 2 * swing, torch.zeros(240)], dim=1).repeat(1, 3)[None]
    (found,) = KinematicBeats()(motion)
    assert found.numpy() == pytest.approx(turns.numpy(), abs=1 / 60)


@pytest.mark.parametrize("radius", [1, 4, 10])
def test_kinematic_beats_follow_the_rule_of_aist(radius):
    motion = walk()
    envelope = [0.0, *speeds(motion)]
    expected = [
        n
        for n in range(1, len(envelope) - 1)
        if all(
            envelope[n] < envelope[m] for m in range(n - radius, n + radius + 1) if 0 <= m < len(envelope) and m != n
        )
    ]
    (found,) = KinematicBeats(60.0, radius)(motion)
    assert len(expected) > 3
    assert (found * 60).round().long().tolist() == expected


def test_kinematic_beats_follow_the_rule_of_bailando():
    motion = walk(seed=1)
    expected = argrelextrema(gaussian_filter(speeds(motion), 5), np.less)[0]
    (found,) = KinematicBeats(60.0, radius=1, smoothing=5.0)(motion)
    assert len(expected) > 3
    assert (found * 60).round().long().tolist() == (expected + 1).tolist()


def test_kinematic_beats_do_not_depend_on_unit_place_or_batch():
    first, second = walk(seed=2), walk(seed=3)
    alone = KinematicBeats()(first)[0]
    assert torch.equal(KinematicBeats()(first * 8)[0], alone)
    assert torch.equal(KinematicBeats()(torch.cat([second, first]))[1], alone)
    assert KinematicBeats(30.0)(first)[0].tolist() == (alone * 2).tolist()


@pytest.mark.parametrize("frames", [0, 1, 2, 60])
def test_a_body_at_rest_has_no_beat(frames):
    (found,) = KinematicBeats()(torch.ones(1, frames, 51))
    assert found.shape == (0,)
    assert found.dtype == torch.float64
    assert KinematicBeats()(torch.ones(0, frames, 51)) == []


def test_motion_errors_say_what_to_do():
    motion = walk(30)
    motion[0, 3, 0] = math.inf
    with pytest.raises(ValueError, match=r"motion: 1 of 1 clips hold NaN or infinity"):
        KinematicBeats()(motion)
    with pytest.raises(ValueError, match=r"motion: found 50 coordinates a frame, expected three for each joint"):
        KinematicBeats()(torch.zeros(1, 30, 50))
    for setting, value in {"fps": 0, "radius": 0, "smoothing": -1.0}.items():
        with pytest.raises(ValueError, match=rf"{setting}: found {value}"):
            KinematicBeats(**{setting: value})
