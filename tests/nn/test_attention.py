"""Attention against that of PyTorch, and what it may and may not see."""

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.nn import attention
from mmdiffusion.nn.attention import LONG, CrossAttention, KeysValues, SelfAttention, attend, normalise
from mmdiffusion.nn.positions import rotary_angles


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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


@pytest.mark.parametrize("length", [64, LONG])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float32, 1e-5)])
@pytest.mark.parametrize("width", [8, 32])
def test_attention_is_its_formula_at_any_length_width_and_precision(width, dtype, tolerance, length):
    given = [normal(seed, 1, length, 2, width).to(dtype).requires_grad_() for seed in range(3)]
    exact = [x.detach().double().requires_grad_() for x in given]
    queries, keys, values = (x.transpose(1, 2) for x in exact)
    expected = ((queries @ keys.mT / width**0.5).softmax(-1) @ values).transpose(1, 2).flatten(2)
    mixed, gradient = attend(*given), normal(3, 1, length, 2 * width)
    found = [mixed, *torch.autograd.grad(mixed, given, gradient.to(dtype))]
    wanted = [expected, *torch.autograd.grad(expected, exact, gradient.double())]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, atol=tolerance * other.abs().max().item(), rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [16, LONG])
def test_what_is_masked_is_not_seen(length, dtype):
    queries, keys, values = (normal(seed, 1, n, 2, 8).to(dtype) for seed, n in ((0, length), (1, 6), (2, 6)))
    mask = torch.tensor([[True, False, True, True, False, False]])
    expected = attend(queries, keys[:, mask[0]], values[:, mask[0]])
    torch.testing.assert_close(attend(queries, keys, values, mask), expected, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ("dtype", "width", "length", "way"),
    [
        (torch.float32, 15, LONG, "blocks"),
        (torch.float32, 16, LONG, "fused"),
        (torch.float32, 15, LONG - 1, "fused"),
        (torch.bfloat16, 12, LONG, "blocks"),
        (torch.bfloat16, 64, LONG, "blocks"),
        (torch.bfloat16, 12, LONG - 1, "products"),
        (torch.bfloat16, 64, LONG - 1, "products"),
        (torch.float16, 8, LONG, "fused"),
        (torch.float64, 4, LONG, "fused"),
    ],
)
def test_each_precision_length_and_width_goes_its_way(monkeypatch, dtype, width, length, way):
    ways = {
        "blocks": (attention, "blockwise_attention"),
        "fused": (F, "scaled_dot_product_attention"),
        "products": (attention, "attend_by_products"),
    }
    gone = []
    for name, (module, function) in ways.items():
        kept = getattr(module, function)
        monkeypatch.setattr(module, function, lambda *given, n=name, f=kept: (gone.append(n), f(*given))[1])
    attend(*(normal(seed, 1, length, 1, width).to(dtype) for seed in range(3)))
    assert gone == [way]


@pytest.mark.parametrize("width", [8, 32])
def test_without_keys_there_is_nothing_to_mix(width):
    queries, nothing = normal(0, 1, LONG, 2, width), normal(1, 1, 0, 2, width)
    assert not attend(queries, nothing, nothing).any()


@pytest.mark.parametrize("width", [8, 32])
def test_autocast_brings_precisions_together(width):
    queries, keys, values = (normal(seed, 1, LONG, 2, width) for seed in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        assert attend(queries, keys, values.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("width", [12, 32])
def test_normalise_in_bfloat16_keeps_its_precision_and_the_numbers(width):
    x, scale = (5 + 3 * normal(0, 4, width)).bfloat16(), normal(1, width)
    assert normalise(x, scale).dtype == torch.bfloat16
    torch.testing.assert_close(normalise(x, scale).float(), normalise(x.float(), scale), atol=2e-2, rtol=2e-2)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 5])
def test_keys_beside_are_attended_like_keys_joined(dtype, count):
    queries, keys, values = (normal(seed, 2, n, 3, 8).to(dtype) for seed, n in ((0, count), (1, 6), (2, 6)))
    whole = attend(queries, keys, values)
    parted = attend(queries, keys[:, :4], values[:, :4], beside=KeysValues(keys[:, 4:], values[:, 4:]))
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(parted, whole, atol=tolerance, rtol=tolerance)


def test_packed_keys_are_the_same_numbers():
    seen = KeysValues(normal(0, 2, 5, 3, 8), normal(1, 2, 5, 3, 8))
    assert all(torch.equal(before, after) for before, after in zip(seen, seen.packed(), strict=True))
    assert all(part.transpose(1, 2).is_contiguous() for part in seen.packed())
