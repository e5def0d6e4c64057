"""Time features, rotary positions and attention against their formulas."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmdiffusion.nn.layers import (
    Block,
    CrossAttention,
    FeedForward,
    SelfAttention,
    TimeEmbedding,
    attend,
    modulate,
    normalise,
    rotary_angles,
    rotate,
    sine_positions,
    zero_init,
)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_zero_init_returns_the_layer_with_nothing_in_it():
    layer = nn.Linear(3, 4)
    assert zero_init(layer) is layer
    assert not any(weight.any() for weight in layer.parameters())


def test_feed_forward_is_four_times_as_wide_inside():
    shapes = [tuple(weight.shape) for weight in FeedForward(6).parameters() if weight.ndim == 2]
    assert shapes == [(24, 6), (6, 24)]


# Time ----------------------------------------------------------------------------------------------------------


def test_time_features_are_sines_of_steps_out_of_a_thousand():
    embedding, time = TimeEmbedding(8), torch.tensor([0.0, 0.001, 0.37, 1.0])
    angles = (1000 * time.double())[:, None] * 1e4 ** (-torch.arange(64).double() / 63)
    features = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    torch.testing.assert_close(embedding(time), embedding.mlp(features), atol=1e-4, rtol=1e-4)


def test_neighbouring_steps_have_different_embeddings():
    torch.manual_seed(0)
    embedded = TimeEmbedding(16)(torch.arange(1001) / 1000)
    assert (embedded[1:] - embedded[:-1]).norm(dim=1).min() > 1e-3


def test_time_embedding_is_a_function_of_the_time_alone():
    embedding, time = TimeEmbedding(8), torch.linspace(0, 1, 5)
    assert torch.equal(embedding(time), embedding(time))


def test_time_features_are_no_weights():
    assert set(TimeEmbedding(8).state_dict()) == {"mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"}


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


# Attention -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_attend_is_the_attention_of_pytorch(masked):
    queries, keys, values = normal(0, 2, 5, 3, 8), normal(1, 2, 6, 3, 8), normal(2, 2, 6, 3, 8)
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] + [True] * 5]) if masked else None
    allowed = None if mask is None else mask[:, None, None]
    expected = F.scaled_dot_product_attention(
        queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), allowed
    )
    torch.testing.assert_close(
        attend(queries, keys, values, mask), expected.transpose(1, 2).flatten(2), atol=1e-6, rtol=1e-5
    )


def test_normalise_is_layer_normalisation_without_a_shift():
    x, scale = 5 + 3 * normal(0, 4, 6), normal(1, 6)
    expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt() * scale
    torch.testing.assert_close(normalise(x, scale), expected, atol=1e-5, rtol=1e-5)


def test_self_attention_ignores_the_size_of_its_queries_and_keys():
    torch.manual_seed(0)
    attention, x = SelfAttention(8, 2), normal(0, 1, 5, 8)
    before, _ = attention(x)
    with torch.no_grad():
        attention.project.weight[:16] *= 50
        attention.project.bias[:16] *= 50
    torch.testing.assert_close(attention(x)[0], before, atol=1e-4, rtol=1e-4)


def test_self_attention_without_positions_has_no_order():
    attention, x = SelfAttention(8, 2), normal(0, 2, 5, 8)
    torch.testing.assert_close(attention(x.flip(1))[0].flip(1), attention(x)[0], atol=1e-6, rtol=1e-5)


def test_self_attention_with_positions_has_an_order():
    attention, x, rotation = SelfAttention(8, 2), normal(0, 2, 5, 8), rotary_angles((5,), 4)
    assert not torch.allclose(attention(x.flip(1), rotation)[0].flip(1), attention(x, rotation)[0], atol=1e-4)


def test_masked_tokens_are_as_good_as_missing_to_the_others():
    attention, x = SelfAttention(8, 2), normal(0, 2, 5, 8)
    mask = torch.tensor([[True] * 3 + [False] * 2] * 2)
    torch.testing.assert_close(attention(x, mask=mask)[0][:, :3], attention(x[:, :3])[0])


def test_tokens_beside_are_seen_like_tokens_within():
    attention, x = SelfAttention(8, 2), normal(0, 2, 7, 8)
    whole, _ = attention(x)
    _, beside = attention.heads(x[:, 5:])
    torch.testing.assert_close(attention(x[:, :5], beside=beside)[0], whole[:, :5])


def test_cross_attention_to_one_token_reads_it_whole():
    attention, context = CrossAttention(8, 2, 6), normal(0, 2, 3, 6)
    only_second = torch.tensor([[False, True, False]] * 2)
    expected = attention.out(attention.project_context(context[:, 1])[:, 8:])[:, None].expand(2, 5, 8)
    torch.testing.assert_close(attention(normal(1, 2, 5, 8), context, only_second), expected, atol=1e-6, rtol=1e-5)


# Block ---------------------------------------------------------------------------------------------------------


def test_modulation_is_a_scale_from_one_and_a_shift():
    x, shift, scale = normal(0, 2, 5, 8), normal(1, 2, 1, 8), normal(2, 2, 1, 8)
    torch.testing.assert_close(modulate(x, shift, scale), normalise(x, torch.ones(8)) * (1 + scale) + shift)


def test_fresh_block_changes_nothing():
    block, x = Block(8, 2, 4, context_width=6), normal(0, 2, 5, 8)
    after, _ = block(x, normal(2, 2, 4), rotary_angles((5,), 4), normal(3, 2, 7, 6))
    assert torch.equal(after, x)
