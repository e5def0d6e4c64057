"""Patches, label encodings and label heads."""

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.nn.denoiser import Denoised
from mmdiffusion.nn.modalities import (
    HeadShape,
    LabelTable,
    MiddleLabelHead,
    OutputLabelHead,
    patchify,
    unpatchify,
)

SHAPE = HeadShape(tap_widths={"down.0": 6, "mid": 10, "up.0": 6}, image_shape=(1, 8, 8), num_classes=5)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Patches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_unpatchify_inverts_patchify(patch_size):
    image = normal(0, 2, 3, 8, 12)
    tokens = patchify(image, patch_size)
    assert tokens.shape == (2, 8 // patch_size, 12 // patch_size, 3 * patch_size**2)
    assert torch.equal(unpatchify(tokens, patch_size), image)


def test_token_is_the_patch_at_its_place():
    image = normal(0, 2, 3, 8, 12)
    assert torch.equal(patchify(image, 4)[:, 1, 2], image[:, :, 4:8, 8:12].flatten(1))


# Label encodings -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    return LabelTable(10, (3, 4, 4), scale=0.7)


def test_encodings_are_orthogonal_and_scale_is_their_root_mean_square(table):
    rows = table.table.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(10) * 0.7**2 * 48, atol=1e-5, rtol=1e-5)


def test_as_many_classes_as_numbers_in_an_image_fit():
    rows = LabelTable(16, (1, 4, 4), scale=1.0).table.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(16) * 16, atol=1e-4, rtol=0)


def test_more_classes_than_numbers_in_an_image_are_refused():
    with pytest.raises(ValueError, match="num_classes is 17: expected at most 16"):
        LabelTable(17, (1, 4, 4), scale=1.0)


def test_encodings_are_fixed_by_their_seed(table):
    torch.manual_seed(123)
    assert torch.equal(LabelTable(10, (3, 4, 4), scale=0.7).table, table.table)
    assert not torch.allclose(LabelTable(10, (3, 4, 4), scale=0.7, seed=1).table, table.table)


def test_encodings_are_nothing_to_learn(table):
    assert list(table.parameters()) == []
    assert not table(torch.arange(10)).requires_grad
    assert set(table.state_dict()) == {"table"}


def test_expectation_of_a_sure_guess_is_its_encoding(table):
    label = torch.tensor([3, 0, 9])
    assert torch.equal(table.expectation(F.one_hot(label, 10).float()), table(label))


def test_expectation_is_linear(table):
    first, second = normal(0, 2, 10).softmax(1), normal(1, 2, 10).softmax(1)
    mixed = 0.3 * table.expectation(first) + 0.7 * table.expectation(second)
    torch.testing.assert_close(table.expectation(0.3 * first + 0.7 * second), mixed, atol=1e-6, rtol=1e-5)


def test_expectation_passes_gradients_to_the_probabilities(table):
    probabilities = torch.full((1, 10), 0.1, requires_grad=True)
    table.expectation(probabilities).square().sum().backward()
    assert probabilities.grad is not None
    assert probabilities.grad.all()


# Label heads ---------------------------------------------------------------------------------------------------


def head_inputs():
    """Output of a denoiser, its image and times; the first two want gradients."""
    taps = {
        name: normal(i, 3, 4, 4, width).requires_grad_() for i, (name, width) in enumerate(SHAPE.tap_widths.items())
    }
    return Denoised(None, taps, None), normal(7, 3, 1, 8, 8).requires_grad_(), torch.tensor([0.1, 0.5, 1.0])


def with_gradient(denoised, prediction):
    named = denoised.taps | {"prediction": prediction}
    return {name for name, tensor in named.items() if tensor.grad is not None and tensor.grad.any()}


def open_gates(head):
    with torch.no_grad():
        for i, weight in enumerate(head.parameters()):
            weight.add_(0.1 * normal(i, *weight.shape))
    return head


HEADS = [
    pytest.param(lambda: MiddleLabelHead(SHAPE), "mid", id="middle"),
    pytest.param(lambda: MiddleLabelHead(SHAPE, tap="up.0"), "up.0", id="middle_of_another_tap"),
    pytest.param(lambda: open_gates(OutputLabelHead(SHAPE, width=8)), "prediction", id="output"),
]


@pytest.mark.parametrize(("head", "source"), HEADS)
def test_head_gives_logits_and_reads_nothing_but_its_source(head, source):
    denoised, prediction, time = head_inputs()
    logits = head()(denoised, prediction, time)
    logits.square().sum().backward()
    assert logits.shape == (3, 5)
    assert with_gradient(denoised, prediction) == {source}


@pytest.mark.parametrize(("head", "source"), HEADS)
def test_gradients_reach_every_weight_of_a_head(head, source):
    built = head()
    built(*head_inputs()).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in built.parameters())


def test_middle_head_reads_the_mean_over_places():
    head, (denoised, prediction, time) = MiddleLabelHead(SHAPE), head_inputs()
    moved = denoised._replace(taps=denoised.taps | {"mid": denoised.taps["mid"].flip(1, 2)})
    torch.testing.assert_close(head(moved, prediction, time), head(denoised, prediction, time))


def test_middle_head_takes_a_line_of_tokens():
    denoised = Denoised(None, {"mid": normal(0, 3, 16, 10)}, None)
    assert MiddleLabelHead(SHAPE)(denoised, normal(1, 3, 1, 8, 8), torch.rand(3)).shape == (3, 5)


def test_middle_head_refuses_an_unknown_tap():
    with pytest.raises(ValueError, match=r"tap is 'down\.3': expected one of down\.0, mid, up\.0"):
        MiddleLabelHead(SHAPE, tap="down.3")


def test_output_head_knows_places_and_time():
    head, (denoised, prediction, time) = open_gates(OutputLabelHead(SHAPE, width=8)), head_inputs()
    logits = head(denoised, prediction, time)
    assert not torch.allclose(head(denoised, prediction.flip(2), time), logits)
    assert not torch.allclose(head(denoised, prediction, 1 - time / 2), logits)
