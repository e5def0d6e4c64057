"""Dancing: moves chosen bar by bar and performed by a body, every pose reached on its count.

A change of pose is a minimum-jerk movement (Flash and Hogan 1985): it starts and ends at rest, so the mean speed
of the joints has its minima on the counts. Such minima are the kinematic beats by which AIST++ (Li et al. 2021) judges
how a dance fits its music.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.data.moves import STYLES, Move
from mmdiffusion.data.poses import FOOT, HAND, MIRROR, TORSO
from mmdiffusion.data.rhythm import BEATS_PER_BAR, GENRES, Rhythm, num_bars
from mmdiffusion.data.skeleton import POSE_SIZES, draw_body, joints, rotation
from mmdiffusion.seeding import SampleNoise

COUNTS_PER_BEAT = 2

_LIFT, _SWING = 0.25, 0.2
"""How high a foot is lifted, and how far a hand swings to the front, half way: shares of the way it goes."""
_UNSTEADY_BEAT = 0.015
"""Beats by which a dancer is early or late, as a standard deviation: 10 ms."""
_TREMOR = 0.005
"""Standard deviation of every number of a pose about what the moves say."""


def perform(rhythm: Rhythm, noise: SampleNoise, time: Float[Tensor, " f"]) -> Float[Tensor, "b f j 3"]:
    """Dance to rhythms.

    Args:
        rhythm: Genre, tempo and phase of b clips.
        noise: Random numbers of these clips: the dancers' bodies and energy, their choice of moves, their unsteadiness.
        time: (f,) seconds of the frames, from 0 upwards.

    Returns:
        (b, f, 17, 3) positions of the joints in metres.
    """
    body = draw_body(noise)
    heading, energy = noise.uniform((2, 1)).unbind(1)
    beat = rhythm.beat(time) + _UNSTEADY_BEAT * waves(noise, 1, time)[..., 0]
    pose = reach(choose_moves(rhythm, noise, float(time[-1])), beat, _STYLES[rhythm.genre, 0])
    pose = groove(pose * (0.94 + 0.08 * energy[..., None]), beat, rhythm)
    positions = joints(pose + _TREMOR * waves(noise, sum(POSE_SIZES), time), body)
    level = torch.zeros_like(heading)
    facing = rotation(heading - 0.5, level, level)
    return positions @ facing.mT


def choose_moves(rhythm: Rhythm, noise: SampleNoise, seconds: float) -> Float[Tensor, "b k p"]:
    """Poses on successive counts: for each bar a move of the genre at random, to either side.

    Args:
        rhythm: Genres of b clips.
        noise: Random numbers of these clips.
        seconds: Length of the clips.

    Returns:
        (b, k, 19) poses from a bar before the clip to a bar after it.
    """
    choices = (noise.uniform((num_bars(seconds) + 2,)) * _MOVES.shape[1]).long()
    return _MOVES[rhythm.genre[:, None], choices].flatten(1, 2)


def reach(
    poses: Float[Tensor, "b k p"], beat: Float[Tensor, "b f"], duration: Float[Tensor, " b"]
) -> Float[Tensor, "b f p"]:
    """Poses between the counts: each change is a minimum-jerk movement that ends on its count.

    On their way feet are lifted off the floor and hands swing round the shoulder. Movements that overlap add up.

    Args:
        poses: (b, k, 19) poses on the counts, the first a bar before beat 0.
        beat: (b, f) position of each frame in beats.
        duration: (b,) beats that a movement takes, at most one bar.
    """
    count = torch.arange(1, poses.shape[1]) / COUNTS_PER_BEAT - BEATS_PER_BAR
    share = (1 + (beat[..., None] - count) / duration[:, None, None]).clamp(0, 1)
    changes = poses.diff(dim=1)
    square = share * share
    done, halfway = square * share * (10 + share * (6 * share - 15)), 16 * (share - square).square()
    pose = poses[:, :1] + done @ changes
    # outward, up, forward of two hands and two feet: how far each goes, and where it is
    ways, limbs = changes[..., :12].unflatten(-1, (4, 3)), pose[..., :12].unflatten(-1, (4, 3))
    limbs[..., :2, 2] += _SWING * halfway @ ways[..., :2, :].norm(dim=-1)
    limbs[..., 2:, 1] += _LIFT * halfway @ ways[..., 2:, [0, 2]].norm(dim=-1)
    return pose


def groove(pose: Float[Tensor, "b f p"], beat: Float[Tensor, "b f"], rhythm: Rhythm) -> Float[Tensor, "b f p"]:
    """Poses with what the body does all the time: it bounces once a beat and sways once in two.

    Args:
        pose: (b, f, 19) poses.
        beat: (b, f) position of each frame in beats.
        rhythm: Genres of the clips.
    """
    _, bounce, sway = _STYLES[rhythm.genre].T[..., None]
    down, left = bounce * (2 * math.pi * beat).cos(), sway * (math.pi * beat).cos()
    zero = torch.zeros_like(beat)
    hips, torso = [left, -(bounce.abs() + down) / 2, zero], [zero, down, left, zero]
    return pose + F.pad(torch.stack([*hips, *torso], dim=-1), (12, 0))


def waves(noise: SampleNoise, channels: int, time: Float[Tensor, " f"]) -> Float[Tensor, "b f c"]:
    """Smooth noise of standard deviation 1: sums of four sines of 0.2 to 2 Hz.

    Args:
        noise: Random numbers of b clips.
        channels: Number of independent waves.
        time: (f,) seconds.
    """
    frequency, phase = noise.uniform((2, 1, channels, 4)).unbind(1)
    cycles = (0.2 + 1.8 * frequency) * time[:, None, None] + phase
    return (2 * math.pi * cycles).sin().sum(-1) / math.sqrt(2)


def _pose(move: Move, count: int) -> list[float]:
    """Numbers of a move's pose on a count: the last word of every track."""
    words = [next(word for word in reversed(track.split()[: count + 1]) if word != ".") for track in move]
    places = (HAND, HAND, FOOT, FOOT, TORSO)
    return [number for word, place in zip(words, places, strict=True) for number in place[word]]


def _mirrored(poses: Tensor) -> Tensor:
    """Poses (..., 19) with left and right exchanged."""
    left_hand, right_hand, left_foot, right_foot, torso = poses.split([3, 3, 3, 3, 7], dim=-1)
    return torch.cat([right_hand, left_hand, right_foot, left_foot, torso * torch.tensor(MIRROR)], dim=-1)


_STYLES = torch.tensor([STYLES[genre][:3] for genre in GENRES])
"""(genres, 3) reach, bounce and sway."""
_MOVES = torch.tensor(
    [[[_pose(move, k) for k in range(BEATS_PER_BAR * COUNTS_PER_BEAT)] for move in STYLES[g].moves] for g in GENRES]
)
_MOVES = torch.cat([_MOVES, _mirrored(_MOVES)], dim=1)
"""(genres, moves, 8, 19) poses on the counts of every move, then of its mirror image."""
