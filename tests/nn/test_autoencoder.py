"""The autoencoder of tokens: shapes of every size, what it learns, and its settings."""

import pytest
import torch

from mmdiffusion.nn import QuantisedAutoencoder
from mmdiffusion.types import ImageSpec, MusicSpec, TokenSpec
from tests.helpers import generator


def build(spec, **changes):
    settings = {"num_codes": 8, "code_width": 4, "strides": [2, 2], "width": 8, "depth": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return QuantisedAutoencoder(spec, **settings | changes)


def data(spec, size=3):
    shape = (spec.channels, spec.size, spec.size) if isinstance(spec, ImageSpec) else (spec.num_samples,)
    return torch.rand(size, *shape, generator=generator()) * 2 - 1


@pytest.mark.parametrize(
    ("spec", "strides", "grid"),
    [
        (ImageSpec(3, 32), [2, 2], (8, 8)),
        (ImageSpec(1, 8), [2], (4, 4)),
        (ImageSpec(1, 9), [3], (3, 3)),
        (ImageSpec(3, 10), [2, 2], (3, 3)),
        (MusicSpec(960, 8000), [8, 5, 3], (8,)),
        (MusicSpec(1001, 8000), [8, 4], (32,)),
        (MusicSpec(5, 8000), [8], (1,)),
    ],
)
def test_shapes_come_back(spec, strides, grid):
    network, x = build(spec, strides=strides, width=16), data(spec)
    assert network.latent == TokenSpec(8, grid)
    tokens = network.encode(x)
    assert tokens.shape == (3, *grid)
    rebuilt = network.train()(x, generator())
    assert rebuilt.data.shape == network.decode(tokens).shape == x.shape
    assert rebuilt.tokens.shape == tokens.shape
    assert rebuilt.commitment.shape == ()


def test_a_filled_up_end_is_not_part_of_the_result():
    network = build(MusicSpec(10, 100), strides=[4]).eval()
    x = data(MusicSpec(10, 100))
    longer = build(MusicSpec(12, 100), strides=[4]).eval()
    longer.load_state_dict(network.state_dict())
    assert torch.equal(longer.encode(torch.nn.functional.pad(x, (0, 2))), network.encode(x))
    assert torch.equal(longer.decode(network.encode(x))[:, :10], network.decode(network.encode(x)))


def test_decoding_tokens_is_the_evaluated_reconstruction():
    network, x = build(ImageSpec(3, 8)).eval(), data(ImageSpec(3, 8))
    rebuilt = network(x)
    assert torch.equal(network.encode(x), rebuilt.tokens)
    torch.testing.assert_close(network.decode(rebuilt.tokens), rebuilt.data.clamp(-1, 1))


def test_a_token_is_seen_near_its_own_place():
    """The receptive field: a change in one corner moves no token of the far one."""
    network, x = build(ImageSpec(1, 32), num_codes=64).eval(), data(ImageSpec(1, 32))
    other = x.clone()
    other[:, :, :4, :4] = -other[:, :, :4, :4]
    before, after = network.encodings(x), network.encodings(other)
    is_changed = (before != after).any(-1).unflatten(1, (8, 8)).any(0)
    assert is_changed[0, 0]
    assert not is_changed[4:, 4:].any()


def test_dilation_hears_further():
    def reach(growth):
        network = build(MusicSpec(256, 8000), strides=[2], depth=3, dilation_growth=growth).eval()
        x = data(MusicSpec(256, 8000), 1)
        other = x.clone()
        other[0, 128] += 1
        return (network.encodings(x) != network.encodings(other)).any(-1).sum()

    assert reach(3) > 2 * reach(1)


@pytest.mark.parametrize("spec", [ImageSpec(1, 8), MusicSpec(64, 8000)], ids=["image", "music"])
def test_it_learns_to_rebuild(spec):
    torch.manual_seed(0)
    network, x = build(spec, num_codes=32, width=32, strides=[2]).train(), data(spec, 16).sign() * 0.5
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    errors, used = [], 0
    for step in range(60):
        rebuilt = network(x, generator(step))
        error = (rebuilt.data - x).square().mean()
        optimizer.zero_grad()
        (error + 0.25 * rebuilt.commitment).backward()
        optimizer.step()
        errors.append(error.item())
        used = len(rebuilt.tokens.unique())
    assert errors[-1] < 0.5 * errors[0]
    assert used > 8


def test_gradients_reach_every_parameter():
    network = build(ImageSpec(3, 8)).train()
    rebuilt = network(data(ImageSpec(3, 8)), generator())
    (rebuilt.data.square().mean() + rebuilt.commitment).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_its_settings_rebuild_it():
    network = build(ImageSpec(3, 8), dilation_growth=2, codebook_decay=0.5)
    again = QuantisedAutoencoder(ImageSpec(3, 8), **network.settings)
    again.load_state_dict(network.state_dict())
    x = data(ImageSpec(3, 8))
    assert torch.equal(again.eval()(x).data, network.eval()(x).data)
    assert again.settings == network.settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_codes": 1}, "num_codes is 1: expected at least 2"),
        ({"strides": []}, r"strides is \[\]: expected at least one"),
        ({"strides": [2, 1]}, r"strides is \[2, 1\]: expected at least one, each 2 or more"),
        ({"width": 9}, "width is 9: expected a multiple of 2"),
        ({"depth": -1}, "depth is -1: expected 0 or more"),
        ({"codebook_decay": 1.0}, "codebook_decay is 1.0: expected 0 up to"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(ImageSpec(1, 8), **changes)
