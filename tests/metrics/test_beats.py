"""The formulas by hand, by brute force, and against mir_eval."""

import itertools
import math

import mir_eval
import numpy as np
import pytest
import torch

from mmdiffusion.metrics import beats


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def random_times(seed, num=6, seconds=3.0):
    return (torch.rand(num, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * seconds).sort().values


# Seconds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_samples", "rate", "expected"),
    [(44100, 22050, 2), (44032, 22050, 2), (44101, 22050, 3), (1, 22050, 1), (22050 * 6, 22050, 6), (16000, 16000, 1)],
)
def test_bins_are_seconds_rounded_up(num_samples, rate, expected):
    assert beats.num_bins(num_samples, rate) == expected == math.ceil(num_samples / rate)


def test_several_beats_of_a_second_count_once():
    assert beats.occupied_bins(tensor(0.0, 0.2, 0.999, 2.0, 2.5), 4).tolist() == [True, False, True, False]
    assert beats.occupied_bins(tensor(), 2).tolist() == [False, False]


def test_a_beat_at_the_very_end_belongs_to_the_last_second():
    assert beats.occupied_bins(tensor(2.0), 2).tolist() == [False, True]


def test_matches_in_bins_by_hand():
    assert beats.matches_in_bins(tensor(0.1, 0.9, 2.5), tensor(0.5, 1.5, 3.0), 4) == (2, 3, 1)
    assert beats.matches_in_bins(tensor(), tensor(0.5), 2) == (0, 1, 0)
    assert beats.matches_in_bins(tensor(), tensor(), 2) == (0, 0, 0)


# Tolerance -----------------------------------------------------------------------------------------------------


def largest_matching(times, reference, tolerance):
    """Size of the largest one-to-one matching, by trying every assignment of the shorter list."""
    shorter, longer = sorted((times.tolist(), reference.tolist()), key=len)
    return max(
        sum(abs(a - b) <= tolerance for a, b in zip(shorter, chosen, strict=True))
        for chosen in itertools.permutations(longer, len(shorter))
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tolerance", [0.07, 0.4])
def test_matches_within_equals_brute_force(seed, tolerance):
    times, reference = random_times(seed, num=5), random_times(seed + 100, num=6)
    expected = largest_matching(times, reference, tolerance)
    assert beats.matches_within(times, reference, tolerance) == (5, 6, expected)


def test_a_beat_is_matched_once_and_greed_does_not_lose_a_pair():
    assert beats.matches_within(tensor(1.0, 1.01, 1.02), tensor(1.0), 0.07) == (3, 1, 1)
    # 1.06 is nearest to 1.05, which must stay free for 1.1
    assert beats.matches_within(tensor(1.06, 1.1), tensor(1.0, 1.05), 0.07) == (2, 2, 2)


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 8), (0.05, 8), (-0.05, 8), (0.1, 0), (-0.1, 0)])
def test_a_shift_of_50_ms_is_forgiven_and_100_ms_are_not(shift, expected):
    reference = torch.arange(8, dtype=torch.float64) / 2 + 0.2
    assert beats.matches_within(reference + shift, reference, 0.07) == (8, 8, expected)


@pytest.mark.parametrize("seed", range(5))
def test_f_measure_equals_mir_eval(seed):
    times, reference = random_times(seed, 20, 6.0), random_times(seed + 50, 17, 6.0)
    expected = mir_eval.beat.f_measure(reference.numpy(), times.numpy(), f_measure_threshold=0.07)
    assert expected > 0
    counts = tensor(beats.matches_within(times, reference, 0.07))
    assert beats.beat_f_measure(counts).item() == pytest.approx(expected, rel=1e-12)


def test_no_beats_match_nothing():
    assert beats.matches_within(tensor(), tensor(1.0), 0.07) == (0, 1, 0)
    assert beats.matches_within(tensor(1.0), tensor(), 0.07) == (1, 0, 0)
    assert beats.matches_within(tensor(), tensor(), 0.07) == (0, 0, 0)


# Shares --------------------------------------------------------------------------------------------------------


def test_shares_by_hand():
    counts = tensor((2, 4, 1), (4, 2, 2), (3, 3, 3))
    assert beats.beat_coverage(counts).tolist() == [0.5, 2.0, 1.0]
    assert beats.beat_hit(counts).tolist() == [0.25, 1.0, 1.0]
    assert beats.beat_precision(counts).tolist() == [0.5, 0.5, 1.0]
    assert beats.beat_f_measure(counts).tolist() == pytest.approx([1 / 3, 2 / 3, 1.0])


@pytest.mark.parametrize("row", [(0, 0, 0), (0, 3, 0), (3, 0, 0)])
@pytest.mark.parametrize(
    "share", [beats.beat_coverage, beats.beat_hit, beats.beat_precision, beats.beat_f_measure], ids=lambda f: f.__name__
)
def test_a_share_of_nothing_is_zero(share, row):
    assert share(tensor(row)).tolist() == [0.0]


def test_harmonic_mean():
    assert beats.harmonic_mean(tensor(0.5)[0], tensor(1.0)[0]).item() == pytest.approx(2 / 3)
    assert beats.harmonic_mean(tensor(0.0)[0], tensor(0.0)[0]).item() == 0


# Alignment -----------------------------------------------------------------------------------------------------


def test_alignment_by_hand():
    dance, music = tensor(1.0, 2.0, 3.1), tensor(1.05, 2.0, 3.0)
    expected = (math.exp(-0.5) + 1 + math.exp(-2)) / 3
    assert beats.beat_alignment(dance, music, 0.05).item() == pytest.approx(expected, rel=1e-12)


def test_alignment_equals_the_frames_of_aist():
    """The published loop: every motion beat, its nearest music beat, sigma 3 in frames of 1/60 s."""
    dance, music = torch.tensor([10, 33, 62, 100]), torch.tensor([12, 30, 70, 90, 110])
    scores = [np.exp(-min((b - m) ** 2 for m in music.tolist()) / 2 / 3**2) for b in dance.tolist()]
    score = beats.beat_alignment(dance.double() / 60, music.double() / 60, 3 / 60)
    assert score.item() == pytest.approx(np.mean(scores), rel=1e-9)


def test_alignment_runs_from_its_first_argument_to_its_second():
    few, many = tensor(1.0), tensor(1.0, 1.5, 2.0, 2.5)
    assert beats.beat_alignment(few, many, 0.05).item() == 1
    assert beats.beat_alignment(many, few, 0.05).item() == pytest.approx(0.25, abs=1e-9)


def test_alignment_without_beats_is_zero():
    for dance, music in ((tensor(), tensor(1.0)), (tensor(1.0), tensor()), (tensor(), tensor())):
        assert beats.beat_alignment(dance, music, 0.05).item() == 0
