"""The denoiser against an hourglass of plain products, and the gradients of its weights."""

import math

import pytest
import torch

from mmdiffusion.nn.denoiser import merge_tokens, split_tokens
from tests.nn.build_denoiser import CONTEXT, LINE, NETS, ONE, OUT_CHANNELS, PLANE, QUERY, busy, fresh, inputs, normal

# The same network in plain products ----------------------------------------------------------------------------


def affine(layer, x):
    return x @ layer.weight.T + layer.bias


def norm(x, weight=1.0, bias=0.0):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def by_head(x, num_heads):
    return x.reshape(*x.shape[:2], num_heads, -1).permute(0, 2, 1, 3)


def softmax_attention(queries, keys, values):
    weights = (torch.einsum("bhid,bhjd->bhij", queries, keys) / math.sqrt(queries.shape[-1])).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.einsum("bhij,bhjd->bihd", weights, values).flatten(2)


def turn(x, grid):
    """Rotary positions as complex numbers: channel i is the real part, channel i + d/2 the imaginary one."""
    half = x.shape[-1] // 2
    pairs = half // len(grid)
    positions = torch.cartesian_prod(*map(torch.arange, grid)).reshape(-1, len(grid))
    angles = (positions[:, :, None] * (math.pi / 2 * 100 ** (-torch.arange(pairs) / pairs))).flatten(1)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


def block_by_hand(block, x, vector, grid, context):
    shift, scale, gate, ff_shift, ff_scale, ff_gate = affine(block.modulation, vector)[:, None].chunk(6, dim=-1)
    attention, cross = block.attention, block.cross
    parts = affine(attention.project, norm(x) * (1 + scale) + shift).chunk(3, dim=-1)
    queries, keys, values = (by_head(part, attention.num_heads) for part in parts)
    queries, keys = norm(queries, attention.scale), norm(keys, attention.scale)
    if grid is not None:
        queries, keys = turn(queries, grid), turn(keys, grid)
    x = x + gate * affine(attention.out, softmax_attention(queries, keys, values))
    if cross is not None:
        queries = affine(cross.project, norm(x, block.cross_norm.weight, block.cross_norm.bias))
        keys, values = affine(cross.project_context, context).chunk(2, dim=-1)
        queries, keys = (norm(by_head(part, cross.num_heads), cross.scale) for part in (queries, keys))
        x = x + affine(cross.out, softmax_attention(queries, keys, by_head(values, cross.num_heads)))
    hidden = affine(block.feed_forward[0], norm(x) * (1 + ff_scale) + ff_shift)
    return x + ff_gate * affine(block.feed_forward[2], hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)


def corners(num_axes):
    halves = [slice(0, None, 2), slice(1, None, 2)]
    return (
        [(slice(None), i) for i in halves] if num_axes == 1 else [(slice(None), i, j) for i in halves for j in halves]
    )


def run_by_hand(net, blocks, level, x, vector, context):
    flat = x.reshape(len(x), -1, x.shape[-1])
    for block in blocks:
        flat = block_by_hand(block, flat, vector, x.shape[1:-1] if net.rotary else None, context)
    return flat.reshape(x.shape)


def level_by_hand(net, i, x, vector, context):
    if i == len(net.levels) - 1:
        return run_by_hand(net, net.middle, i, x, vector, context)
    skip = run_by_hand(net, net.down[i], i, x, vector, context)
    places = corners(len(net.grid))
    merged = affine(net.merge[i], torch.cat([skip[place] for place in places], dim=-1))
    coarse = affine(net.split[i], level_by_hand(net, i + 1, merged, vector, context))
    back = torch.empty_like(skip)
    for place, part in zip(places, coarse.chunk(len(places), dim=-1), strict=True):
        back[place] = part
    mixed = (1 - net.skip[i]) * skip + net.skip[i] * back
    return run_by_hand(net, net.up[i], i, mixed, vector, context)


@torch.no_grad()
def denoiser_by_hand(net, tokens, time, condition):
    vector = net.times[0](time[:, 0]) + affine(net.vector, condition.vector)
    vector = vector * torch.sigmoid(vector)
    x = affine(net.embed, tokens)
    x = x if net.position is None else x + net.position
    x = level_by_hand(net, 0, x, vector, condition.tokens)
    shift, scale = affine(net.out_modulation, vector).reshape(len(x), *[1] * len(net.grid), -1).chunk(2, dim=-1)
    return affine(net.out, norm(x) * (1 + scale) + shift)


@pytest.mark.parametrize("context_width", [None, CONTEXT], ids=["no_context", "context"])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize(("grid", "levels"), NETS)
def test_prediction_is_that_of_plain_products(grid, levels, positions, context_width):
    net = busy(grid, levels, positions=positions, context_width=context_width)
    given = inputs(net)
    torch.testing.assert_close(net(**given).prediction, denoiser_by_hand(net, **given), atol=1e-5, rtol=1e-5)


def test_one_axis_and_two_agree_where_positions_are_learned():
    line, plane = busy((16,), ONE, positions="learned"), fresh((4, 4), ONE, positions="learned")
    weights = line.state_dict()
    plane.load_state_dict(weights | {"position": weights["position"].reshape(1, 4, 4, -1)})
    given = inputs(line)
    folded = plane(**given | {"tokens": given["tokens"].reshape(2, 4, 4, -1)})
    torch.testing.assert_close(folded.prediction.flatten(1, 2), line(**given).prediction, atol=1e-6, rtol=1e-5)


# The fresh network and its gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize(("grid", "levels"), NETS)
def test_fresh_network_predicts_zero_from_finite_taps(grid, levels):
    net = fresh(grid, levels, context_width=CONTEXT)
    denoised = net(**inputs(net))
    assert torch.equal(denoised.prediction, torch.zeros(2, *grid, OUT_CHANNELS))
    assert all(tap.isfinite().all() for tap in denoised.taps.values())


def without_gradient(net):
    return {name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()}


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize(("grid", "levels"), NETS)
def test_gradients_reach_every_parameter(grid, levels, positions):
    net = busy(grid, levels, positions=positions, context_width=CONTEXT, query_width=QUERY, num_times=2)
    denoised = net(**inputs(net, query=True))
    (denoised.prediction.square().sum() + denoised.query.square().sum()).backward()
    assert without_gradient(net) == set()


def test_without_a_query_only_the_weights_of_the_query_get_no_gradient():
    net = busy(context_width=CONTEXT, query_width=QUERY, positions="learned")
    net(**inputs(net)).prediction.square().sum().backward()
    assert without_gradient(net) == {name for name, _ in net.named_parameters() if name.startswith("stream.")}


def test_compiling_in_place_keeps_the_names_of_the_weights():
    net = fresh()
    names = list(net.state_dict())
    net.compile()
    assert list(net.state_dict()) == names


# Tokens between levels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [LINE, PLANE, (4, 6)])
def test_split_inverts_merge(grid):
    x = normal(0, 2, *grid, 5)
    merged = merge_tokens(x)
    assert tuple(merged.shape[1:-1]) == tuple(size // 2 for size in grid)
    assert torch.equal(split_tokens(merged, len(grid)), x)


def test_merge_puts_neighbours_side_by_side():
    x = torch.arange(16).reshape(1, 4, 4, 1).float()
    assert merge_tokens(x)[0, 0, 1].tolist() == [2, 3, 6, 7]
