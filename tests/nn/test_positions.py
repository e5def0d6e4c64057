"""Rotary angles and sine positions against their formulas."""

import math

import pytest
import torch

from mmdiffusion.nn.positions import rotary_angles, rotate, sine_positions


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Rotary positions ----------------------------------------------------------------------------------------------

GRIDS = pytest.mark.parametrize("grid", [(7,), (4, 5)], ids=["1d", "2d"])


def logits_between_places(grid, head_width=8):
    """Product of one query and one key, the query at every place and the key at every place."""
    rotation, num_tokens = rotary_angles(grid, head_width), math.prod(grid)
    queries, keys = (rotate(normal(i, head_width).expand(1, num_tokens, 1, -1), rotation)[0, :, 0] for i in (0, 1))
    return (queries @ keys.T).reshape(*grid, *grid)


def test_rotary_logits_depend_on_the_distance_along_a_line():
    logits = logits_between_places((7,))
    torch.testing.assert_close(logits[1:, 1:], logits[:-1, :-1], atol=1e-5, rtol=1e-5)


def test_rotary_logits_depend_on_the_distance_along_both_axes():
    logits = logits_between_places((4, 5))
    torch.testing.assert_close(logits[1:, :, 1:], logits[:-1, :, :-1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[:, 1:, :, 1:], logits[:, :-1, :, :-1], atol=1e-5, rtol=1e-5)


@GRIDS
def test_rotary_logits_tell_all_distances_apart(grid):
    from_first = logits_between_places(grid)[(0,) * len(grid)].flatten()
    gaps = (from_first[:, None] - from_first).abs() + torch.eye(len(from_first))
    assert gaps.min() > 1e-4


@GRIDS
@pytest.mark.parametrize("head_width", [8, 10])
def test_rotation_keeps_norms(grid, head_width):
    x = normal(0, 2, math.prod(grid), 3, head_width)
    torch.testing.assert_close(rotate(x, rotary_angles(grid, head_width)).norm(dim=-1), x.norm(dim=-1))


def test_first_token_stays():
    x = normal(0, 1, 7, 2, 8)
    assert torch.equal(rotate(x, rotary_angles((7,), 8))[:, 0], x[:, 0])


def test_channels_over_stay():
    x = normal(0, 1, 20, 1, 10)
    turned = rotate(x, rotary_angles((4, 5), 10))
    assert torch.equal(turned[..., [4, 9]], x[..., [4, 9]])


@pytest.mark.parametrize(("grid", "width"), [((120,), 32), ((8, 8), 30)])
def test_sine_positions_are_told_apart_and_as_large_as_tokens(grid, width):
    table = sine_positions(grid, width)
    assert table.shape == (*grid, width)
    table = table.reshape(-1, width)
    distance = torch.cdist(table, table) + torch.eye(len(table)) * 100
    assert distance.min() > 0.5
    assert table.square().mean() == pytest.approx(0.5, rel=0.15)


def test_sine_positions_of_an_axis_are_those_of_the_transformer():
    """PE(p, i) = sin or cos of p / 1000^(2 i / d), Vaswani et al. 2017, Sec. 3.5, with another base."""
    table = sine_positions((7,), 8)
    for place in range(7):
        for i in range(4):
            angle = place / 1000 ** (2 * i / 8)
            assert table[place, i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[place, 4 + i] == pytest.approx(math.cos(angle), abs=1e-6)
