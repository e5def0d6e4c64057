"""Masks: numbers and places of patches, what is hidden, and what is put back."""

import pytest
import torch

from mmdiffusion.masks import PatchMask, hide_patches, hide_share, paste


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def image(size=2000, side=64):
    return torch.rand(size, 1, side, side, generator=generator()) + 0.1


@pytest.mark.parametrize(("side", "size", "mean"), [(32, 4000, 0.54), (64, 3000, 0.25), (128, 1000, 0.07)])
def test_zero_to_ten_patches_hide_what_was_simulated(side, size, mean):
    """Mean coverage of 0 to 10 patches of 16 x 16: 54, 25 and 7 %, from a simulation of its own."""
    masked = PatchMask(complete_share=0.0)(image(1, side).expand(size, -1, -1, -1), generator())
    hidden = 1 - masked[:, -1].mean((1, 2))
    assert hidden.mean().item() == pytest.approx(mean, abs=0.015)
    assert (hidden == 0).double().mean().item() == pytest.approx(1 / 11, abs=0.02)


def test_a_single_patch_is_one_square_inside():
    masked = PatchMask(5, max_patches=1, complete_share=0.0)(image(500, 12), generator())
    hidden = masked[:, -1] == 0
    for one in hidden:
        rows, columns = one.any(1).nonzero().flatten(), one.any(0).nonzero().flatten()
        assert one.sum() in (0, 25)
        assert len(rows) in (0, 5)
        assert len(columns) in (0, 5)
    assert torch.equal(hidden.any(0), torch.ones(12, 12, dtype=torch.bool)), "every pixel is hidden in some image"


def test_what_is_seen_is_the_image_and_what_is_hidden_is_zero():
    whole = image(50, 16)
    masked = PatchMask(4, 8, 0.3)(whole, generator())
    visible = masked[:, -1:] == 1
    assert ((masked[:, -1:] == 0) | visible).all()
    assert torch.equal(masked[:, :-1], torch.where(visible, whole, 0))
    assert torch.equal(paste(torch.full_like(whole, 9.0), masked), torch.where(visible, whole, 9.0))


def test_some_are_hidden_whole():
    masked = PatchMask(2, 1, complete_share=0.3)(image(3000, 8), generator())
    assert (masked[:, -1].amax((1, 2)) == 0).double().mean().item() == pytest.approx(0.3, abs=0.03)


def test_masks_come_from_the_generator_alone():
    mask, whole = PatchMask(4, 3), image(20, 8)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert torch.equal(mask(whole, generator(1)), mask(whole, generator(1)))
    assert not torch.equal(mask(whole, generator(1)), mask(whole, generator(2)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_share_of_the_tiles_is_hidden(share):
    order = torch.rand(40, 16, generator=generator())
    masked = hide_share(image(40, 8), 2, share, order)
    tiles = masked[:, -1].unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    assert (tiles.amin(-1) == tiles.amax(-1)).all(), "whole tiles"
    assert (1 - tiles[..., 0]).sum((1, 2)).unique().tolist() == [16 * share]
    assert torch.equal((1 - tiles[..., 0]).flatten(1) == 1, order.argsort(1).argsort(1) < 16 * share)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 0}, "patch_size is 0"),
        ({"max_patches": -1}, "max_patches is -1"),
        ({"complete_share": 1.5}, "complete_share is 1.5: expected 0 to 1"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PatchMask(**settings)


def test_a_patch_larger_than_the_image_is_named():
    with pytest.raises(ValueError, match="patch_size of the mask is 16: expected at most the image's 8"):
        PatchMask()(image(1, 8), generator())


def test_fixed_number_of_patches_lies_where_places_say():
    places = torch.tensor([[[0.0, 0.0], [0.999, 0.999]], [[0.5, 0.0], [0.5, 0.0]]])
    hidden = hide_patches(torch.ones(2, 1, 5, 7), 2, places)[:, 1] == 0
    expected = torch.zeros(2, 5, 7, dtype=torch.bool)
    expected[0, :2, :2] = expected[0, 3:, 5:] = expected[1, 2:4, :2] = True
    assert torch.equal(hidden, expected)
