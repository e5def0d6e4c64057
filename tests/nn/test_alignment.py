"""The alignment head against a plain transformer over query and image, and images that are looked at once."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.nn import AlignmentHead, Denoiser, Level
from mmdiffusion.nn.alignment import look
from mmdiffusion.types import Condition

WIDTH, QUERIES = 10, 2
LEVELS = [Level(16, 1, 2), Level(24, 2, 2)]
DIRECTIONS = pytest.mark.parametrize("direction", ["two_way", "one_way"])


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def busy(module) -> Any:
    """In float64, none of its weights zero."""
    with torch.no_grad():
        for i, parameter in enumerate(module.double().parameters()):
            parameter.add_(0.2 * normal(i, *parameter.shape))
    return module


def head(direction, **options):
    torch.manual_seed(0)
    return busy(AlignmentHead(WIDTH, 24, direction, width=16, heads=2, **options))


def norm(x, layer):
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, layer.eps)


def test_two_way_head_is_a_transformer_over_both():
    model, query, middle = head("two_way"), normal(0, 3, QUERIES, WIDTH), normal(1, 3, 2, 2, 24)
    x = torch.cat([model.enter_query(query), model.enter_image(middle.flatten(1, 2))], 1)
    for layer in model.layers:
        x = plain(layer, x, torch.ones(6, 6, dtype=torch.bool))
    torch.testing.assert_close(model(query, middle), model.out(norm(x[:, :QUERIES], model.norm)))


def test_one_way_head_is_the_same_transformer_in_which_images_do_not_see_the_query():
    model, query, middle = head("one_way"), normal(0, 3, QUERIES, WIDTH), normal(1, 3, 2, 2, 24)
    assert torch.equal(model.read(query, model.remember(middle)), model(query, middle))
    x = torch.cat([model.enter_query(query), model.enter_image(middle.flatten(1, 2))], 1)
    allowed = torch.ones(6, 6, dtype=torch.bool)
    allowed[QUERIES:, :QUERIES] = False
    for layer in model.layers:
        x = plain(layer, x, allowed)
    torch.testing.assert_close(model(query, middle), model.out(norm(x[:, :QUERIES], model.norm)))


def plain(layer, x, allowed):
    """The layer in plain products, `allowed` (n, n) says who sees whom."""
    attention = layer.attention
    chunks = attention.project(norm(x, layer.attention_norm)).chunk(3, -1)
    queries, keys, values = (c.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for c in chunks)
    queries, keys = (F.layer_norm(c, c.shape[-1:], eps=1e-6) * attention.scale for c in (queries, keys))
    scores = (queries @ keys.mT / queries.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
    x = x + attention.out((scores.softmax(-1) @ values).transpose(1, 2).flatten(2))
    return x + layer.feed_forward(norm(x, layer.feed_forward_norm))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10, "heads": 4}, "width of the alignment head is 10"),
        ({"depth": 0}, "depth of the alignment head is 0"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AlignmentHead(4, 8, **options)


# Looking -------------------------------------------------------------------------------------------------------


def net(direction) -> Any:
    torch.manual_seed(0)
    return busy(Denoiser((4, 4), 3, 3, None, None, WIDTH, LEVELS, query_direction=direction, embedding_width=12))


@DIRECTIONS
def test_a_look_gives_what_one_pass_with_the_query_gives(direction):
    model, reader, tokens = net(direction), head(direction), normal(1, 3, 4, 4, 3)
    images = look(model, reader, tokens, Condition())
    for seed in (2, 3):
        query, time = normal(seed, 3, QUERIES, WIDTH), torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
        denoised = model(tokens, torch.stack([0 * time, time], 1), Condition(), query=query, until="mid")
        torch.testing.assert_close(images(query, time), reader(denoised.query, denoised.taps["mid"]))


@DIRECTIONS
def test_the_denoiser_runs_once_for_all_queries_or_once_for_each(direction):
    model, runs = net(direction), []
    model.register_forward_hook(lambda *_: runs.append(1))
    images = look(model, head(direction), normal(1, 3, 4, 4, 3), Condition())
    for seed in range(4):
        images(normal(seed, 3, 1, WIDTH), torch.ones(3, dtype=torch.float64))
    assert len(runs) == (1 if direction == "one_way" else 4)
