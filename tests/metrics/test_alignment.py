"""The dance that moves to the clicks is aligned, one that moves between them is not."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from mmdiffusion.metrics import BeatAlignment, BeatDetector, KinematicBeats, OnsetPeaks
from tests.metrics.sound import RATE, Marks, clicks, marked


class Stamps(BeatDetector):
    """Reads beat times from the first coordinate: the test says where they are, NaN where there is none."""

    name = "stamps"

    def __call__(self, clips):
        return [clip[:, 0][~clip[:, 0].isnan()].double() for clip in clips]

    def signature(self):
        return self.name


def stamped(*clips):
    """Motion (b frames 3) for `Stamps`."""
    motion = torch.full((len(clips), max(map(len, clips)), 3), math.nan, dtype=torch.float64)
    for row, times in zip(motion, clips, strict=True):
        row[: len(times), 0] = torch.tensor(times, dtype=torch.float64)
    return motion


MUSIC = marked([1.0, 2.0, 3.0], [1.0, 2.0], [], [1.0])
MOTION = stamped([1.05, 2.0], [1.5], [1.0, 2.0, 3.0], [])
SCORES = [(math.exp(-0.5) + 1) / 2, math.exp(-50), 0.0, 0.0]


def build():
    return BeatAlignment(Marks(100), Stamps())


def test_mean_over_clips_by_hand():
    metric = build()
    metric.update(MUSIC, MOTION)
    assert metric.compute().item() == pytest.approx(np.mean(SCORES), abs=1e-7)
    assert metric.protocol() == {
        "music_beats": "marks at 100 Hz",
        "motion_beats": "stamps",
        "sigma": 0.05,
        "direction": "each motion beat to the nearest music beat",
        "without_beats": "a clip without beats on either side counts as 0",
        "num_samples": 4,
        "num_without_motion_beats": 1,
        "num_without_music_beats": 1,
        "motion_beats_per_clip": 1.5,
        "music_beats_per_clip": 1.5,
        "spread": pytest.approx(np.std(SCORES, ddof=1), abs=1e-7),
    }
    assert metric.name() == "beat_alignment[stamps-marks]"


def test_neither_order_nor_batch_size_changes_a_bit():
    metric = build()
    metric.update(MUSIC, MOTION)
    expected = metric.compute()
    metric.reset()
    for clip in (2, 1, 3, 0):
        metric.update(MUSIC[[clip]], MOTION[[clip]])
    assert metric.compute() == expected


def test_no_clip_is_an_error_and_one_has_no_spread():
    metric = build()
    with pytest.raises(ValueError, match=r"beat_alignment\[stamps-marks\]: found 0 clips, expected at least 1"):
        metric.compute()
    metric.update(MUSIC[:1], MOTION[:1])
    assert metric.compute().item() == pytest.approx(SCORES[0], abs=1e-7)
    assert "spread" not in metric.protocol()
    with pytest.raises(ValueError, match=r"sigma: found 0"):
        BeatAlignment(Marks(100), Stamps(), sigma=0.0)


def test_metric_copies():
    metric = build()
    metric.update(MUSIC, MOTION)
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert other.compute() == metric.compute()


def dance(turns, period):
    """Four seconds of a body at 60 frames a second that swings between turning points at the given phase."""
    time = torch.arange(240, dtype=torch.float64) / 60
    swing = torch.cos(torch.pi * (time - turns) / period)
    return torch.stack([swing, swing / 2, torch.zeros(240)], 1).repeat(1, 4)[None]


def test_a_dance_to_the_clicks_beats_one_between_them():
    music = clicks(np.arange(0.21, 4, 0.55))[None]
    scores = []
    for delay in (0.0, 0.275):
        metric = BeatAlignment(OnsetPeaks(RATE), KinematicBeats())
        metric.update(music, dance(0.21 + delay, 0.55))
        scores.append(metric.compute().item())
        assert float(metric.protocol()["motion_beats_per_clip"]) >= 5
    assert scores[0] > 0.9
    assert scores[1] < 0.01
    assert metric.name() == "beat_alignment[kinematic-onset]"
