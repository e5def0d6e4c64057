"""The text stream against plain attention over image and query with a mask, and what it may and may not see."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.nn import Denoiser, Level
from mmdiffusion.types import Condition

WIDTH, QUERIES = 10, 2
LEVELS = [Level(16, 1, 2), Level(24, 2, 2)]
DIRECTIONS = pytest.mark.parametrize("direction", ["two_way", "one_way"])


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def busy(module):
    """In float64, none of its weights zero."""
    with torch.no_grad():
        for i, parameter in enumerate(module.double().parameters()):
            parameter.add_(0.2 * normal(i, *parameter.shape))
    return module


def net(direction, levels=LEVELS) -> Any:
    torch.manual_seed(0)
    return busy(Denoiser((4, 4), 3, 3, None, None, WIDTH, levels, query_direction=direction, embedding_width=12))


def inputs(batch=3) -> dict[str, Any]:
    time = torch.linspace(0.1, 0.9, 2 * batch).double().reshape(batch, 2)
    return {
        "tokens": normal(1, batch, 4, 4, 3),
        "time": time,
        "condition": Condition(),
        "query": normal(2, batch, QUERIES, WIDTH),
    }


# One block in plain products -----------------------------------------------------------------------------------


def norm(x, layer=None):
    """Layer normalisation in plain arithmetic."""
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + (1e-6 if layer is None else layer.eps)).sqrt()
    return scaled if layer is None else scaled * layer.weight + layer.bias


def turned(x, cosine, sine):
    half = x.shape[-1] // 2
    return x * cosine + torch.cat([-x[..., half:], x[..., :half]], -1) * sine


def plain_attention(attention, image, query, rotation, allowed):
    """Softmax attention over image tokens and query tokens at once, `allowed` (n+q, n+q) says who sees whom."""
    both, heads = torch.cat([image, query], 1), attention.num_heads
    width = both.shape[-1] // heads
    chunks = F.linear(both, attention.project.weight, attention.project.bias).chunk(3, -1)
    per_head = [c.reshape(*c.shape[:2], heads, width).transpose(1, 2) for c in chunks]
    queries, keys = (norm(c) * attention.scale for c in per_head[:2])
    count = image.shape[1]
    queries, keys = (torch.cat([turned(c[:, :, :count], *rotation), c[:, :, count:]], 2) for c in (queries, keys))
    scores = (queries @ keys.transpose(-1, -2) / width**0.5).masked_fill(~allowed, -torch.inf)
    mixed = (scores.softmax(-1) @ per_head[2]).transpose(1, 2).flatten(2)
    mixed = F.linear(mixed, attention.out.weight, attention.out.bias)
    return mixed[:, :count], mixed[:, count:]


@DIRECTIONS
def test_one_block_is_masked_attention_over_both(direction):
    model = net(direction, [Level(16, 1, 2)])
    given, block, stream = inputs(), model.middle[0], model.stream
    n, q = 16, QUERIES
    allowed = torch.ones(n + q, n + q, dtype=torch.bool)
    allowed[:n, n:] = direction == "two_way"

    part = stream.blocks[0]
    query = given["query"] + stream.time(given["time"][:, 1])[:, None]
    tokens = part.enter(query)
    vector = F.silu(model.times[0](given["time"][:, 0]))
    shift, scale, gate, shift2, scale2, gate2 = block.modulation(vector)[:, None].chunk(6, -1)
    image = model.embed(given["tokens"]).flatten(1, 2)
    rotation = (model.cosine_0, model.sine_0)
    mixed = plain_attention(
        block.attention, norm(image) * (1 + scale) + shift, norm(tokens, part.attention_norm), rotation, allowed
    )
    image = image + gate * mixed[0]
    image = image + gate2 * block.feed_forward(norm(image) * (1 + scale2) + shift2)
    tokens = tokens + mixed[1]
    tokens = tokens + part.feed_forward(norm(tokens, part.feed_forward_norm))

    denoised = model(**given, until="mid")
    torch.testing.assert_close(denoised.taps["mid"].flatten(1, 2), image, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(denoised.query, part.leave(tokens), atol=1e-6, rtol=1e-6)


# Who sees whom -------------------------------------------------------------------------------------------------


def test_one_way_the_image_is_bit_equal_whatever_the_query():
    model, given = net("one_way"), inputs()
    first = model(**given)
    second = model(**given | {"query": given["query"] + 1})
    without = model(**given | {"query": None, "time": given["time"][:, 0]})
    for other in (second, without):
        assert torch.equal(first.prediction, other.prediction)
        assert all(torch.equal(first.taps[name], other.taps[name]) for name in first.taps)
    assert not torch.allclose(first.query, second.query)


def test_two_way_the_image_follows_the_query():
    model, given = net("two_way"), inputs()
    other = model(**given | {"query": given["query"] + 1})
    assert not torch.allclose(model(**given).taps["mid"], other.taps["mid"])


@DIRECTIONS
def test_the_query_follows_the_image_at_every_scale(direction):
    model, given = net(direction), inputs()
    before = model(**given, until="mid").query
    for block in (model.down[0][0], model.middle[0], model.middle[1]):
        kept = block.attention.project.weight.detach().clone()
        with torch.no_grad():
            block.attention.project.weight[-block.attention.out.in_features :] *= 1.5
        assert not torch.allclose(model(**given, until="mid").query, before)
        with torch.no_grad():
            block.attention.project.weight.copy_(kept)


def test_remembered_images_give_the_same_query():
    model, given = net("one_way"), inputs()
    together = model(**given, until="mid")
    image = model(given["tokens"], given["time"][:, 0], given["condition"], until="mid")
    later = model.stream.read(given["query"], given["time"][:, 1], image.memory)
    assert torch.equal(later, together.query)


def test_two_way_images_cannot_be_remembered():
    model, given = net("two_way"), inputs()
    memory = model(**given, until="mid").memory
    with pytest.raises(AssertionError, match="cannot be remembered"):
        model.stream.read(given["query"], given["time"][:, 1], memory)


@DIRECTIONS
def test_losses_of_the_query_reach_the_way_down_and_nothing_behind_the_middle(direction):
    model = net(direction)
    model(**inputs(), until="mid").query.square().sum().backward()
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    behind = ("up.", "split.", "skip.", "out.", "out_modulation.")
    assert not [name for name in reached if name.startswith(behind)]
    assert {"embed.weight", "down.0.0.attention.project.weight", "stream.time.mlp.0.weight"} <= reached
