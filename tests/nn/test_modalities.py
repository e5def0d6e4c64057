"""Images as patches."""

import pytest
import torch

from mmdiffusion.nn.modalities import patchify, unpatchify


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_unpatchify_inverts_patchify(patch_size):
    image = normal(0, 2, 3, 8, 12)
    tokens = patchify(image, patch_size)
    assert tokens.shape == (2, 8 // patch_size, 12 // patch_size, 3 * patch_size**2)
    assert torch.equal(unpatchify(tokens, patch_size), image)


def test_token_is_the_patch_at_its_place():
    image = normal(0, 2, 3, 8, 12)
    assert torch.equal(patchify(image, 4)[:, 1, 2], image[:, :, 4:8, 8:12].flatten(1))
