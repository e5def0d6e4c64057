"""Beat metrics on marked clips, on click tracks, and on clips without a beat."""

import copy
import pickle

import numpy as np
import pytest
import torch

from mmdiffusion.metrics import (
    BeatCoverage,
    BeatF1,
    BeatFMeasure,
    BeatHit,
    BeatHitSpread,
    BeatPrecision,
    BeatPrecisionSpread,
    OnsetPeaks,
)
from tests.metrics.sound import RATE, Marks, clicks, marked

ALL = [BeatCoverage, BeatHit, BeatPrecision, BeatF1, BeatPrecisionSpread, BeatHitSpread, BeatFMeasure]
SHARES = [BeatCoverage, BeatHit, BeatPrecision, BeatF1, BeatFMeasure]
MARKS = Marks(100)

# seconds with a beat: sample 2, 1, 3, 0; reference 3, 2, 3, 1; both 1, 1, 3, 0
MUSIC = marked([0.1, 0.9, 2.5], [3.0], [0.0, 1.5, 2.5], [])
REFERENCE = marked([0.5, 1.5, 3.0], [1.0, 3.5], [0.2, 1.2, 2.2, 2.9], [2.0])
COVERAGE, HIT, PRECISION = [2 / 3, 1 / 2, 1, 0], [1 / 3, 1 / 2, 1, 0], [1 / 2, 1, 1, 0]


def value(metric, music, reference, batch_size=100):
    metric.reset()
    for part, target in zip(music.split(batch_size), reference.split(batch_size), strict=True):
        metric.update(part, target)
    return metric.compute().item()


def test_published_formulas_by_hand():
    precision, hit = np.mean(PRECISION), np.mean(HIT)
    expected = {
        BeatCoverage: np.mean(COVERAGE),
        BeatHit: hit,
        BeatPrecision: precision,
        BeatF1: 2 * precision * hit / (precision + hit),
        BeatPrecisionSpread: np.std(PRECISION, ddof=1),
        BeatHitSpread: np.std(HIT, ddof=1),
    }
    for metric, number in expected.items():
        assert value(metric(MARKS), MUSIC, REFERENCE) == pytest.approx(number, rel=1e-12), metric.__name__


def test_f_measure_is_a_mean_over_clips():
    music, reference = marked([0.5, 1.5, 2.5], [1.0]), marked([0.55, 1.6], [1.0])
    assert value(BeatFMeasure(MARKS), music, reference) == pytest.approx((2 / 5 + 1) / 2)
    assert value(BeatFMeasure(MARKS, tolerance=0.15), music, reference) == pytest.approx((4 / 5 + 1) / 2)
    assert value(BeatFMeasure(MARKS, tolerance=0.02), music, reference) == pytest.approx((0 + 1) / 2)


@pytest.mark.parametrize("metric", ALL)
def test_neither_order_nor_batch_size_changes_a_bit(metric):
    expected = value(metric(MARKS), MUSIC, REFERENCE)
    order = [2, 0, 3, 1]
    for batch_size in (1, 3):
        assert value(metric(MARKS), MUSIC[order], REFERENCE[order], batch_size) == expected


@pytest.mark.parametrize("metric", SHARES)
def test_identical_clips_score_one(metric):
    assert value(metric(MARKS), REFERENCE, REFERENCE) == 1


@pytest.mark.parametrize("metric", ALL)
def test_silence_is_zero_and_never_nan(metric):
    silence = torch.zeros_like(MUSIC)
    for music, reference in ((silence, REFERENCE), (MUSIC, silence), (silence, silence)):
        measured = metric(MARKS)
        assert value(measured, music, reference) == 0
        assert measured.protocol()["num_without_beats"] == (4 if music is silence else 1)
        assert measured.protocol()["num_without_reference_beats"] == (4 if reference is silence else 0)


def test_a_beat_every_second_hits_everything():
    dense = marked(*[[0.5, 1.5, 2.5, 3.5]] * 4)
    assert value(BeatHit(MARKS), dense, REFERENCE) == 1
    assert value(BeatCoverage(MARKS), dense, REFERENCE) == pytest.approx((4 / 3 + 2 + 4 / 3 + 4) / 4)
    assert value(BeatFMeasure(MARKS), dense, REFERENCE) < 0.5, "the tolerance tells"


def test_names():
    detector = OnsetPeaks(RATE)
    names = [metric(detector).name() for metric in ALL]
    assert names == [
        "beat_coverage[onset-1s]",
        "beat_hit[onset-1s]",
        "beat_precision[onset-1s]",
        "beat_f1[onset-1s]",
        "beat_precision_spread[onset-1s]",
        "beat_hit_spread[onset-1s]",
        "beat_f1[onset-70ms]",
    ]
    assert BeatFMeasure(OnsetPeaks(RATE, 3), 0.05).name() == "beat_f1[onset3-50ms]"


@pytest.mark.parametrize("metric", ALL)
def test_protocol_says_how(metric):
    measured = metric(MARKS)
    value(measured, MUSIC, REFERENCE)
    protocol = measured.protocol()
    assert protocol["detector"] == "marks at 100 Hz"
    assert protocol["tolerance"] in {"1s", "70ms"}
    assert protocol["num_samples"] == measured.num_samples == 4
    assert (protocol["num_without_beats"], protocol["num_without_reference_beats"]) == (1, 0)
    measured.reset()
    assert measured.protocol()["num_samples"] == 0
    assert "num_without_beats" not in measured.protocol()


def test_spread_stands_in_the_protocol_from_two_clips_on():
    hit = BeatHit(MARKS)
    value(hit, MUSIC, REFERENCE)
    assert hit.protocol()["spread"] == pytest.approx(np.std(HIT, ddof=1))
    value(hit, MUSIC[:1], REFERENCE[:1])
    assert "spread" not in hit.protocol()


def test_too_few_clips_are_an_error():
    for metric in ALL:
        least = 2 if metric in {BeatPrecisionSpread, BeatHitSpread} else 1
        measured = metric(MARKS)
        with pytest.raises(ValueError, match=rf"{measured.title}\[.*found 0 clips, expected at least {least}"):
            measured.compute()
    with pytest.raises(ValueError, match=r"found 1 clips, expected at least 2"):
        value(BeatHitSpread(MARKS), MUSIC[:1], REFERENCE[:1])
    empty = BeatHit(MARKS)
    empty.update(MUSIC[:0], REFERENCE[:0])
    with pytest.raises(ValueError, match=r"found 0 clips"):
        empty.compute()


def test_errors_name_the_field():
    with pytest.raises(ValueError, match=r"music of 400 and reference_music of 300 samples.*seconds at 100 Hz"):
        BeatHit(MARKS).update(MUSIC, REFERENCE[:, :300])
    with pytest.raises(ValueError, match=r"tolerance: found 0"):
        BeatFMeasure(MARKS, 0.0)
    BeatHit(MARKS).update(MUSIC[:, :350], REFERENCE)


@pytest.mark.parametrize("metric", ALL)
def test_metrics_copy_and_have_no_weights(metric):
    measured = metric(MARKS)
    measured.update(MUSIC, REFERENCE)
    for other in (copy.deepcopy(measured), pickle.loads(pickle.dumps(measured))):
        assert other.compute() == measured.compute()
    assert not measured.state_dict()


# Click tracks through librosa -----------------------------------------------------------------------------------

GRID = np.arange(0.3, 3.9, 0.5)


@pytest.mark.parametrize("metric", SHARES)
def test_identical_audio_scores_one_and_silence_zero(metric):
    track = torch.stack([clicks(GRID), clicks([0.5, 2.2])])
    assert value(metric(OnsetPeaks(RATE)), track, track) == 1
    assert value(metric(OnsetPeaks(RATE)), torch.zeros_like(track), track) == 0


def test_a_click_a_second_hits_every_beat():
    every_second = clicks([0.4, 1.4, 2.4, 3.4])[None]
    music = torch.stack([clicks(GRID), clicks([1.3]), clicks([0.7, 3.6])])
    assert value(BeatHit(OnsetPeaks(RATE)), every_second.repeat(3, 1), music) == 1


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 1, 1), (0.045, 1, 1), (0.12, 0, 0)])
def test_f_measure_forgives_a_small_shift(shift, low, high):
    score = value(BeatFMeasure(OnsetPeaks(RATE)), clicks(GRID + shift)[None], clicks(GRID)[None])
    assert low <= score <= high
    assert value(BeatHit(OnsetPeaks(RATE)), clicks(GRID + shift)[None], clicks(GRID)[None]) == 1
