"""Beat grids."""

import pytest
import torch

from mmdiffusion.data.rhythm import BEATS_PER_BAR, GENRES, TEMPI, Rhythm, draw_rhythm, num_bars
from mmdiffusion.seeding import SampleNoise


@pytest.fixture(scope="module")
def rhythm():
    return draw_rhythm(torch.arange(3000) % 10, SampleNoise(0, range(3000)))


def test_tempi_are_those_of_aist():
    for genre, tempi in zip(GENRES, TEMPI.tolist(), strict=True):
        assert tempi == ([110, 115, 120, 125, 130, 135] if genre == "house" else [80, 90, 100, 110, 120, 130])


def test_every_genre_has_each_of_its_tempi_equally_often(rhythm):
    for genre in range(10):
        tempi, counts = rhythm.tempo[rhythm.genre == genre].unique(return_counts=True)
        assert tempi.tolist() == TEMPI[genre].tolist()
        assert (counts - 50).abs().max() < 5 * 50**0.5


def test_phase_is_uniform_over_a_bar_and_tells_nothing_of_the_tempo(rhythm):
    assert rhythm.phase.min() >= 0
    assert rhythm.phase.max() < BEATS_PER_BAR
    assert (rhythm.phase.histc(8, 0, 4) - 375).abs().max() < 5 * 375**0.5
    assert torch.stack([rhythm.tempo, rhythm.phase]).corrcoef()[0, 1].abs() < 0.05


def test_beats_by_hand():
    rhythm = Rhythm(torch.tensor([0, 1]), torch.tensor([120.0, 90.0]), torch.tensor([0.5, 3.0]))
    assert rhythm.beat(torch.tensor([0.0, 1.0])).tolist() == [[0.5, 2.5], [3.0, 4.5]]
    assert rhythm.time(torch.tensor([0.5, 4.0])).flatten().tolist() == pytest.approx([0, 1.75, -5 / 3, 2 / 3])


def test_no_clip_touches_more_bars(rhythm):
    for seconds in (0.5, 2.0, 6.0):
        last = rhythm.beat(torch.tensor([seconds])).max() / BEATS_PER_BAR
        assert num_bars(seconds) - 1 < last < num_bars(seconds)
