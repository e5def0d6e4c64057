"""Heads: what they read, what their output says, and what does not fit them."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.nn import (
    IdentityEncoder,
    MiddleHead,
    NoEncoder,
    OutputHead,
    OwnChannels,
    OwnHead,
    OwnToken,
    TokensHead,
)
from mmdiffusion.nn.denoiser import Denoised
from mmdiffusion.nn.heads import HeadShape, mean_of, surprise, value_of
from mmdiffusion.types import FeatureSpec, ImageSpec, LabelSpec, MaskedSpec, SegmentationSpec

TAPS = {"down.0": 6, "mid": 10, "up.0": 6}
IMAGE = (1, 8, 8)
LABEL, MAP, VECTOR = LabelSpec(5), SegmentationSpec(("a", "b", "c"), 8), FeatureSpec((7,))


def shape_of(spec, encoder=NoEncoder):
    """Two levels over patches of 2 x 2 pixels: 4 tokens a side, 2 in the middle."""
    return HeadShape(spec, TAPS, IMAGE, 2, encoder(spec, IMAGE))


SHAPE = shape_of(LABEL)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# What an output says -------------------------------------------------------------------------------------------


def test_a_label_s_output_is_logits():
    output, label = normal(0, 4, 5), torch.tensor([0, 4, 2, 2])
    torch.testing.assert_close(mean_of(output, LABEL), output.exp() / output.exp().sum(1, keepdim=True))
    assert torch.equal(value_of(output, LABEL), output.argmax(1))
    torch.testing.assert_close(surprise(output, label, LABEL), F.cross_entropy(output, label, reduction="none"))


def test_a_map_s_surprise_is_the_mean_over_its_pixels():
    output, value = normal(0, 2, 3, 8, 8), torch.randint(3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    each = [-math.log(mean_of(output, MAP)[0, value[0, i, j], i, j]) for i in range(8) for j in range(8)]
    assert surprise(output, value, MAP)[0].item() == pytest.approx(sum(each) / 64, rel=1e-5)
    assert value_of(output, MAP).shape == (2, 8, 8)


def test_numbers_are_their_own_mean():
    output, value = normal(0, 4, 7), normal(1, 4, 7)
    assert torch.equal(mean_of(output, VECTOR), output)
    torch.testing.assert_close(surprise(output, value, VECTOR), ((output - value) ** 2).mean(1))


def test_a_masked_image_is_seen_where_that_is_more_likely():
    output = torch.tensor([[[[0.3, 2.0]], [[0.6, 0.4]]]])
    assert value_of(output, MaskedSpec(1, 2)).tolist() == [[[[pytest.approx(0.3), 0.0]], [[1.0, 0.0]]]]


# Heads ---------------------------------------------------------------------------------------------------------


def head_inputs():
    """Output of a denoiser, its image, what it puts out in two further channels, and times; all want gradients."""
    taps = {
        name: normal(i, 3, *([2, 2] if name == "mid" else [4, 4]), width).requires_grad_()
        for i, (name, width) in enumerate(TAPS.items())
    }
    query = normal(8, 3, 1, 7).requires_grad_()
    inputs = (normal(7, 3, 1, 8, 8).requires_grad_(), normal(9, 3, 2, 8, 8).requires_grad_())
    return Denoised(None, taps, query), *inputs, torch.tensor([0.1, 0.5, 1.0])


def with_gradient(denoised, prediction, own):
    named = denoised.taps | {"prediction": prediction, "own": own, "query": denoised.query}
    return {name for name, tensor in named.items() if tensor.grad is not None and tensor.grad.any()}


def open_gates(head):
    with torch.no_grad():
        for i, weight in enumerate(head.parameters()):
            weight.add_(0.1 * normal(i, *weight.shape))
    return head


HEADS = [
    pytest.param(lambda: MiddleHead(SHAPE), "mid", (5,), id="middle"),
    pytest.param(lambda: MiddleHead(shape_of(VECTOR), tap="up.0"), "up.0", (7,), id="middle_of_another_tap"),
    pytest.param(lambda: open_gates(OutputHead(SHAPE, width=8)), "prediction", (5,), id="output"),
    pytest.param(lambda: TokensHead(shape_of(MAP)), "up.0", (3, 8, 8), id="tokens"),
    pytest.param(lambda: TokensHead(shape_of(ImageSpec(1, 8)), "mid"), "mid", (1, 8, 8), id="tokens_of_the_middle"),
    pytest.param(lambda: OwnHead(shape_of(FeatureSpec((2, 4, 4)), OwnChannels)), "own", (2, 4, 4), id="own_channels"),
    pytest.param(lambda: OwnHead(shape_of(VECTOR, OwnToken)), "query", (7,), id="own_token"),
]


@pytest.mark.parametrize(("head", "source", "size"), HEADS)
def test_head_reads_nothing_but_its_source(head, source, size):
    denoised, prediction, own, time = head_inputs()
    output = head()(denoised, prediction, own, time)
    output.square().sum().backward()
    assert output.shape == (3, *size)
    assert with_gradient(denoised, prediction, own) == {source}


@pytest.mark.parametrize(("head", "source", "size"), HEADS)
def test_gradients_reach_every_weight_of_a_head(head, source, size):
    built = head()
    built(*head_inputs()).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in built.parameters())


def test_a_detached_output_head_reads_the_same_and_teaches_the_denoiser_nothing():
    denoised, prediction, own, time = head_inputs()
    output = open_gates(OutputHead(SHAPE, width=8))
    alone = open_gates(OutputHead(SHAPE, width=8, detach_image_path=True))
    alone.load_state_dict(output.state_dict())
    read = alone(denoised, prediction, own, time)
    torch.testing.assert_close(read, output(denoised, prediction, own, time))
    read.square().sum().backward()
    assert with_gradient(denoised, prediction, own) == set()
    assert all(weight.grad is not None and weight.grad.any() for weight in alone.parameters())


def test_middle_head_reads_the_mean_over_places():
    head, (denoised, *rest) = MiddleHead(SHAPE), head_inputs()
    moved = denoised._replace(taps=denoised.taps | {"mid": denoised.taps["mid"].flip(1, 2)})
    torch.testing.assert_close(head(moved, *rest), head(denoised, *rest))


def test_output_head_knows_places_and_time():
    head, (denoised, prediction, own, time) = open_gates(OutputHead(SHAPE, width=8)), head_inputs()
    logits = head(denoised, prediction, own, time)
    assert not torch.allclose(head(denoised, prediction.flip(2), own, time), logits)
    assert not torch.allclose(head(denoised, prediction, own, 1 - time / 2), logits)


@pytest.mark.parametrize(("tap", "tokens"), [("last", 4), ("mid", 2)])
def test_tokens_head_reads_each_patch_off_its_own_token(tap, tokens):
    head, (denoised, *rest) = TokensHead(shape_of(MAP), tap), head_inputs()
    name = "up.0" if tap == "last" else tap
    changed = denoised.taps[name].detach().clone()
    changed[:, 1, 0] += normal(3, changed.shape[-1])
    moved = head(denoised._replace(taps=denoised.taps | {name: changed}), *rest) != head(denoised, *rest)
    side = 8 // tokens
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[side : 2 * side, :side] = True
    assert torch.equal(moved.any(1)[0], expected)


def test_coarser_maps_are_averaged_over_their_pixels():
    head, (denoised, prediction, own, time) = OwnHead(shape_of(FeatureSpec((2, 4, 4)), OwnChannels)), head_inputs()
    torch.testing.assert_close(head(denoised, prediction, own, time)[0, 1, 0, 3], own[0, 1, :2, 6:].mean())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MiddleHead(SHAPE, tap="down.3"), r"tap is 'down\.3': expected last or one of down\.0, mid, up\.0"),
        (lambda: MiddleHead(shape_of(MAP)), "MiddleHead has SegmentationSpec.*: expected a label or a vector"),
        (lambda: OutputHead(shape_of(ImageSpec(1, 8))), "OutputHead has ImageSpec.*: expected a label or a vector"),
        (lambda: OutputHead(SHAPE, patch_size=3), "patch_size of the head is 3: expected a divisor of 8"),
        (lambda: TokensHead(SHAPE), "TokensHead has LabelSpec.*: expected a picture or map"),
        (lambda: TokensHead(shape_of(FeatureSpec((2, 2, 2)))), "has 4 tokens a side, expected a divisor of 2"),
        (lambda: OwnHead(shape_of(ImageSpec(1, 8), IdentityEncoder)), "OwnHead has IdentityEncoder: expected Own"),
    ],
)
def test_what_does_not_fit_a_head_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
