"""Performances: closed forms of movements, and what a dancer may do."""

import math

import pytest
import torch

from mmdiffusion.data.choreography import choose_moves, groove, perform, reach, waves
from mmdiffusion.data.moves import STYLES
from mmdiffusion.data.poses import FOOT, HAND, TORSO
from mmdiffusion.data.rhythm import GENRES, Rhythm, draw_rhythm
from mmdiffusion.data.skeleton import BONES
from mmdiffusion.seeding import SampleNoise

TIME = torch.arange(360) / 60


def rhythm_of(genre, clips=1, tempo=120.0, phase=0.0):
    return Rhythm(torch.full((clips,), GENRES.index(genre)), torch.full((clips,), tempo), torch.full((clips,), phase))


def poses_with(channel, values):
    poses = torch.zeros(1, len(values), 19)
    poses[0, :, channel] = torch.tensor(values)
    return poses


def dots(beats):
    return torch.tensor(beats)[None]


# Vocabulary ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("genre", GENRES)
def test_moves_are_bars_of_known_words_that_begin_with_a_word(genre):
    for move in STYLES[genre].moves:
        for track, words in zip(move, (HAND, HAND, FOOT, FOOT, TORSO), strict=True):
            counts = track.split()
            assert len(counts) == 8
            assert counts[0] != "."
            assert set(counts) <= {*words, "."}


def test_vocabularies_share_no_move():
    moves = [move for style in STYLES.values() for move in style.moves]
    assert len(moves) == len(set(moves)) == 30


def test_bars_are_the_moves_of_the_genre_and_their_mirror_images():
    rhythm = rhythm_of("break", clips=200)
    bars = choose_moves(rhythm, SampleNoise(0, range(200)), 6.0).unflatten(1, (-1, 8)).flatten(0, 1)
    first = STYLES["break"].moves[0]
    tracks = [track.split() for track in first]
    words = [[next(w for w in reversed(track[: k + 1]) if w != ".") for track in tracks] for k in range(8)]
    move = torch.tensor([[*HAND[a], *HAND[b], *FOOT[c], *FOOT[d], *TORSO[e]] for a, b, c, d, e in words])
    prime = {word: word[:-1] if word.endswith("'") else f"{word}'" for word in TORSO}
    image = torch.tensor([[*HAND[b], *HAND[a], *FOOT[d], *FOOT[c], *TORSO[prime[e]]] for a, b, c, d, e in words])
    shares = [float((bars == bar).all(-1).all(-1).float().mean()) for bar in (move, image)]
    assert shares == pytest.approx([1 / 6, 1 / 6], abs=0.04)
    assert len(torch.unique(bars, dim=0)) == 6


# Movements -------------------------------------------------------------------------------------------------------


def test_poses_are_reached_on_their_counts():
    """Counts 0 and 1/2 of beat 0 stand at 8 and 9, after the bar before."""
    values = torch.randn(24, generator=torch.Generator().manual_seed(0)).tolist()
    counts = torch.arange(24) / 2 - 4
    found = reach(poses_with(12, values), counts[None], torch.tensor([0.5]))
    torch.testing.assert_close(found[0, :, 12], torch.tensor(values))


def test_movement_is_minimum_jerk():
    """x(s) = 10 s^3 - 15 s^4 + 6 s^5: half way at half time, greatest speed 15/8, at rest at both ends."""
    duration = 0.8
    beat = torch.linspace(-1, 0.5, 3001).double()
    pose = reach(poses_with(13, [0.0] * 8 + [1.0] * 4).double(), beat[None], torch.tensor([duration]).double())
    place = pose[0, :, 13]
    speed = place.diff() / beat.diff()
    assert place[beat <= -duration].abs().max() == 0
    assert (place[beat >= 0] - 1).abs().max() < 1e-9
    assert place[(beat + duration / 2).abs().argmin()] == pytest.approx(0.5, abs=1e-3)
    assert speed.max() == pytest.approx(15 / 8 / duration, rel=1e-3)
    assert beat[speed.argmax()] == pytest.approx(-duration / 2, abs=2e-3)


def test_feet_are_lifted_and_hands_swing_on_their_way():
    steps, swings = poses_with(8, [0.0] * 8 + [0.4] * 2), poses_with(0, [0.0] * 8 + [0.5] * 2)
    beat, duration = dots([-0.5, -0.25, 0.0]), torch.tensor([0.5])
    assert reach(steps, beat, duration)[0, :, 7].tolist() == pytest.approx([0, 0.25 * 0.4, 0])
    assert reach(swings, beat, duration)[0, :, 2].tolist() == pytest.approx([0, 0.2 * 0.5, 0])


def test_hips_are_lowest_on_the_beat_and_left_on_odd_counts():
    beat = dots([0.0, 0.5, 1.0, 2.0])
    moved = groove(torch.zeros(1, 4, 19), beat, rhythm_of("middle hip-hop"))[0]
    style = STYLES["middle hip-hop"]
    assert moved[:, 13].tolist() == pytest.approx([-style.bounce, 0, -style.bounce, -style.bounce], abs=1e-6)
    assert moved[:, 12].tolist() == pytest.approx([style.sway, 0, -style.sway, style.sway], abs=1e-6)
    up = groove(torch.zeros(1, 4, 19), beat, rhythm_of("house"))[0, :, 13]
    assert up.tolist() == pytest.approx([0, STYLES["house"].bounce, 0, 0], abs=1e-6)


def test_waves_are_smooth_and_of_unit_variance():
    found = waves(SampleNoise(0, range(400)), 2, TIME)
    assert found.shape == (400, 360, 2)
    assert found.std() == pytest.approx(1, abs=0.05)
    assert found.mean().abs() < 0.05
    assert found.diff(dim=1).abs().max() * 60 < 2 * math.pi * 2 * math.sqrt(8)  # four sines of at most 2 Hz


# Performances ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def performance():
    clips = range(200)
    rhythm = draw_rhythm(torch.tensor(clips) % 10, SampleNoise(1, clips))
    return perform(rhythm, SampleNoise(2, clips), TIME)


def test_bones_are_rigid_within_a_clip_and_differ_between_dancers(performance):
    lengths = torch.stack([(performance[:, :, a] - performance[:, :, b]).norm(dim=-1) for a, b in BONES], -1)
    assert (lengths - lengths[:, :1]).abs().max() < 1e-4
    assert (lengths[:, 0].std(dim=0) / lengths[:, 0].mean(dim=0)).min() > 0.04


def test_speeds_are_those_of_people(performance):
    speed = performance.diff(dim=1).norm(dim=-1) * 60
    assert speed.max() < 15
    assert 0.3 < speed.mean() < 1.2


def test_feet_stay_on_the_floor_and_heads_above_it(performance):
    ankles, nose = performance[:, :, 15:, 1], performance[:, :, 0, 1]
    assert ankles.min() > 0.04
    assert performance[..., 1].min() > 0
    assert ankles.amin(dim=-1).flatten().quantile(0.9) < 0.15
    assert nose.min() > 0.4
    assert nose.max() < 1.9


def test_dancers_stay_on_their_spot_and_face_the_front(performance):
    assert performance[..., [0, 2]].abs().max() < 1.6
    shoulders = (performance[:, :, 5] - performance[:, :, 6]).mean(dim=1)
    assert (shoulders[:, 0] > 0).all()
