"""Time features, modulation and blocks against their formulas."""

import torch
from torch import nn

from mmdiffusion.nn.attention import normalise
from mmdiffusion.nn.layers import Block, FeedForward, TimeEmbedding, modulate, zero_init
from mmdiffusion.nn.positions import rotary_angles


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


# Block ---------------------------------------------------------------------------------------------------------


def test_modulation_is_a_scale_from_one_and_a_shift():
    x, shift, scale = normal(0, 2, 5, 8), normal(1, 2, 1, 8), normal(2, 2, 1, 8)
    torch.testing.assert_close(modulate(x, shift, scale), normalise(x, torch.ones(8)) * (1 + scale) + shift)


def test_fresh_block_changes_nothing():
    block, x = Block(8, 2, 4, context_width=6), normal(0, 2, 5, 8)
    after, _ = block(x, normal(2, 2, 4), rotary_angles((5,), 4), normal(3, 2, 7, 6))
    assert torch.equal(after, x)
