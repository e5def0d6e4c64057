"""Encoders: fixed, linear in the modality's mean, and what does not fit them."""

import pytest
import torch
from safetensors.torch import save_file

from mmdiffusion.nn import (
    BackboneEncoder,
    IdentityEncoder,
    NoEncoder,
    OwnChannels,
    OwnToken,
    PaletteEncoder,
    TableEncoder,
)
from mmdiffusion.nn.encoders import as_mean
from mmdiffusion.types import FeatureSpec, ImageSpec, LabelSpec, MaskedSpec, SegmentationSpec, TextSpec

SHAPE = (3, 4, 4)
LABEL, MAP, VECTOR = LabelSpec(10), SegmentationSpec(("a", "b", "c"), 4), FeatureSpec((7,))
ALL = [
    NoEncoder(LABEL, SHAPE),
    TableEncoder(LABEL, SHAPE, scale=0.7),
    TableEncoder(VECTOR, SHAPE),
    BackboneEncoder(LABEL, SHAPE),
    IdentityEncoder(ImageSpec(3, 4), SHAPE),
    IdentityEncoder(MaskedSpec(3, 4), SHAPE, scale=0.5),
    PaletteEncoder(MAP, SHAPE),
    OwnChannels(MAP, SHAPE),
    OwnChannels(FeatureSpec((5, 2, 2)), SHAPE),
    OwnToken(FeatureSpec((20,)), SHAPE),
]


def called(encoder):
    return f"{type(encoder).__name__}-{type(encoder.spec).__name__}"


EACH = pytest.mark.parametrize("encoder", ALL, ids=called)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@EACH
def test_it_is_linear_fixed_and_of_its_size(encoder):
    first, second = (normal(seed, 2, *encoder.mean_shape) for seed in (0, 1))
    made = encoder(first)
    assert made.shape == (2, encoder.own_channels or 3, 4, 4)
    torch.testing.assert_close(encoder(0.3 * first + 0.7 * second), 0.3 * made + 0.7 * encoder(second))
    assert not encoder(torch.zeros_like(first)).any()
    assert not list(encoder.parameters())
    assert not encoder(first.requires_grad_()).requires_grad


def test_certainty_stands_for_classes():
    label = torch.tensor([3, 0])
    assert torch.equal(as_mean(label, LABEL).argmax(1), label)
    assert as_mean(label, LABEL).sum(1).tolist() == [1, 1]
    segmentation = torch.tensor([[[0, 2], [1, 1]]])
    assert torch.equal(as_mean(segmentation, SegmentationSpec(("a", "b", "c"), 2)).argmax(1), segmentation)
    numbers = normal(0, 2, 7)
    assert as_mean(numbers, VECTOR) is numbers


@pytest.mark.parametrize("scale", [torch.nan, torch.inf, 0.0, -0.5])
@pytest.mark.parametrize("encoder", [one for one in ALL if not isinstance(one, NoEncoder)], ids=called)
def test_a_scale_that_is_no_size_is_named(encoder, scale):
    kind = type(encoder)
    with pytest.raises(ValueError, match=f"scale of {kind.__name__} is {scale}: expected above 0, and finite"):
        kind(encoder.spec, SHAPE, scale=scale)


def test_what_encodes_nothing_has_no_scale():
    with pytest.raises(TypeError, match="scale"):
        NoEncoder(LABEL, SHAPE, scale=2.0)


# Tables --------------------------------------------------------------------------------------------------------


def test_a_table_is_orthogonal_and_scale_is_its_root_mean_square():
    rows = ALL[1].table.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(10) * 0.7**2 * 48, atol=1e-5, rtol=1e-5)


def test_a_vector_of_unit_variance_is_encoded_at_its_scale():
    encoded = TableEncoder(VECTOR, SHAPE, scale=0.5)(normal(0, 4000, 7))
    assert encoded.square().mean().sqrt().item() == pytest.approx(0.5, rel=0.02)


def test_a_table_is_fixed_by_its_seed():
    torch.manual_seed(123)
    assert torch.equal(TableEncoder(LABEL, SHAPE, 0.7).table, ALL[1].table)
    assert not torch.allclose(TableEncoder(LABEL, SHAPE, 0.7, seed=1).table, ALL[1].table)


def test_a_table_may_be_what_a_generator_made(tmp_path):
    pictures = 3 * normal(0, 10, *SHAPE)
    save_file({"table": pictures}, tmp_path / "made.safetensors")
    table = TableEncoder(LABEL, SHAPE, 0.7, path=str(tmp_path / "made.safetensors")).table
    assert table.square().mean().sqrt().item() == pytest.approx(0.7)
    torch.testing.assert_close(table / table[0, 0, 0, 0], pictures / pictures[0, 0, 0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"table": torch.ones(9, *SHAPE)}, r"it holds table \(9, 3, 4, 4\), expected finite pictures \(10, 3, 4, 4\)"),
        ({"other": torch.ones(2)}, "it holds no table"),
        ({"table": torch.full((10, *SHAPE), torch.nan)}, "expected finite pictures"),
        ({"table": torch.zeros(10, *SHAPE)}, "not all of them zero"),
        (None, "cannot be read as safetensors"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, content, message):
    path = tmp_path / "made.safetensors"
    path.write_bytes(b"nothing") if content is None else save_file(content, path)
    with pytest.raises(ValueError, match=message):
        TableEncoder(LABEL, SHAPE, path=str(path))
    with pytest.raises(ValueError, match="there is none"):
        TableEncoder(LABEL, SHAPE, path=str(tmp_path / "missing"))


def test_the_backbone_s_pictures_are_centred_and_scaled():
    encoder, pictures = BackboneEncoder(LABEL, SHAPE, scale=0.4), 5 + normal(0, 10, *SHAPE)
    assert not encoder(torch.eye(10)).any()
    encoder.refresh(pictures)
    assert encoder.table.mean(0).abs().max() < 1e-6
    assert encoder.table.square().mean().sqrt().item() == pytest.approx(0.4)
    encoder.refresh(torch.ones(10, *SHAPE))
    assert not encoder.table.any(), "alike for all classes, they tell nothing"


# Pictures and maps ---------------------------------------------------------------------------------------------


def test_of_a_masked_image_the_colours_are_encoded():
    masked = normal(0, 2, 4, 4, 4)
    assert torch.equal(ALL[5](masked), 0.5 * masked[:, :3])


def test_a_palette_gives_each_class_its_colour():
    encoder = PaletteEncoder(MAP, SHAPE, scale=0.5)
    colours = encoder(as_mean(torch.tensor([[[0, 1], [2, 0]]]).repeat_interleave(2, 1).repeat_interleave(2, 2), MAP))
    assert torch.equal(colours[0, :, 0, 3], encoder.palette[1])
    assert torch.equal(colours[0, :, 3, 3], encoder.palette[0])
    torch.testing.assert_close(encoder.palette.square().mean(1).sqrt(), torch.full((3,), 0.5))
    assert torch.cdist(encoder.palette, encoder.palette).add(torch.eye(3)).min() > 0.2


def test_a_coarse_map_is_spread_over_pixels():
    coarse = normal(0, 1, 5, 2, 2)
    assert torch.equal(ALL[8](coarse)[0, :, 1, 3], 0.5 * coarse[0, :, 0, 1])


def test_a_token_s_numbers_come_back():
    encoder, vector = ALL[9], normal(0, 3, 20)
    assert encoder.own_channels == 2
    assert torch.equal(encoder.vector(encoder(vector)), vector)
    assert not encoder(vector).flatten(1)[:, 20:].any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TableEncoder(LabelSpec(49), SHAPE), "TableEncoder has 49 classes: expected at most 48"),
        (lambda: TableEncoder(MAP, SHAPE), "TableEncoder has SegmentationSpec.*: expected a label or a vector"),
        (lambda: TableEncoder(TextSpec(3), SHAPE), "spec is TextSpec.*: expected a label, a picture"),
        (lambda: IdentityEncoder(ImageSpec(3, 8), SHAPE), "expected 3 channels of 4 x 4.*; for OwnChannels resize it"),
        (
            lambda: IdentityEncoder(ImageSpec(1, 2), SHAPE),
            "expected 3 channels of 4 x 4, as the image; take OwnChannels",
        ),
        (lambda: IdentityEncoder(LABEL, SHAPE), "IdentityEncoder has .*: expected 3 channels.*; take TableEncoder"),
        (lambda: PaletteEncoder(LABEL, SHAPE), "PaletteEncoder has .*: expected a map of classes with 4 pixels"),
        (
            lambda: OwnChannels(FeatureSpec((1, 3, 3)), SHAPE),
            "OwnChannels has .*: expected .* side divides 4; for OwnChannels resize it",
        ),
        (lambda: OwnChannels(LABEL, SHAPE), "OwnChannels has .*: expected a picture or map.*; take TableEncoder"),
        (lambda: BackboneEncoder(MAP, SHAPE), "BackboneEncoder has .*: expected a label"),
        (lambda: BackboneEncoder(LABEL, SHAPE, time=0.0), "time is 0.0, .*: expected above 0 up to 1"),
        (lambda: BackboneEncoder(LABEL, SHAPE, time=torch.nan), "time is nan"),
        (lambda: BackboneEncoder(LABEL, SHAPE, time=torch.inf), "time is inf"),
        (lambda: BackboneEncoder(LABEL, SHAPE, every_n_steps=0), "every_n_steps is 0: expected .* at least 1"),
        (lambda: OwnToken(MAP, SHAPE), "OwnToken has .*: expected a vector of features"),
    ],
)
def test_what_does_not_fit_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
