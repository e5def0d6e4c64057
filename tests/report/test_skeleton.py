"""The drawn dancer: in the picture, upright, and the one that dances."""

import pytest
import torch

from mmdiffusion.data import Dance
from mmdiffusion.report.skeleton import HEAD, HEIGHT, LINES, NECK, WIDTH, skeleton


@pytest.fixture(scope="module")
def drawn():
    motion = Dance(seconds=1.0).rows("test", [0])["motion"][0]
    assert isinstance(motion, torch.Tensor)
    made = skeleton(motion.unflatten(1, (-1, 3)), 60, [])
    assert made is not None
    return made


def test_all_points_are_in_the_picture(drawn):
    points = torch.tensor(drawn.frames).unflatten(1, (-1, 2))
    assert points.shape == (30, 19, 2)
    assert drawn.fps == 30
    assert points.min() >= 0
    assert points[..., 0].max() <= WIDTH
    assert points[..., 1].max() <= HEIGHT
    assert (points[:, HEAD, 1] - drawn.head).min() >= 0


def test_the_head_is_above_the_feet_and_left_is_to_the_right(drawn):
    points = torch.tensor(drawn.frames).unflatten(1, (-1, 2)).mean(0)
    assert points[HEAD, 1] < points[NECK, 1] < points[11, 1] < points[15, 1]
    assert points[5, 0] > points[6, 0], "the dancer looks at us"


def test_lines_know_their_side(drawn):
    sides = {(a, b): side for a, b, side in drawn.lines}
    assert sides[5, 7] == "left"
    assert sides[12, 14] == "right"
    assert sides[5, 6] == sides[NECK, HEAD] == "middle"
    assert len(sides) == len(LINES)


def test_an_outline_has_every_line_of_the_frame(drawn):
    assert drawn.outline(0.5).count("M") == len(LINES)
    assert drawn.at(0.5) == drawn.frames[15]
    assert drawn.at(9.0) == drawn.frames[-1]


def test_another_body_is_not_drawn():
    assert skeleton(torch.zeros(30, 24, 3), 60, []) is None
