"""Grey levels are tokens, exactly."""

import pytest
import torch

from mmdiffusion.codecs import GreyLevels
from mmdiffusion.data import Digits
from mmdiffusion.types import ImageSpec, LabelSpec, TokenSpec


def test_real_digits_come_back_exactly():
    data = Digits()
    codec, image = GreyLevels(data.spec), data.columns("test")["image"]
    tokens = codec.encode(image)
    assert codec.latent == TokenSpec(17, (8, 8))
    assert tokens.shape == (360, 8, 8)
    assert set(tokens.unique().tolist()) == set(range(17))
    torch.testing.assert_close(codec.decode(tokens), image, rtol=0, atol=1e-6)
    assert not list(codec.parameters())


@pytest.mark.parametrize("num_levels", [2, 17, 256])
def test_every_token_comes_back(num_levels):
    codec = GreyLevels({"image": ImageSpec(1, 16, num_levels)})
    tokens = torch.arange(256).remainder(num_levels).reshape(1, 16, 16)
    image = codec.decode(tokens)
    assert (image.min(), image.max()) == (-1, 1)
    assert torch.equal(codec.encode(image), tokens)


def test_what_it_cannot_encode_is_named():
    for spec in (ImageSpec(3, 8, 17), LabelSpec(10)):
        with pytest.raises(ValueError, match="GreyLevels expects images of one channel"):
            GreyLevels({"image": spec})
    codec = GreyLevels({"image": ImageSpec(1, 2, 17)})
    with pytest.raises(ValueError, match="tokens has 17, outside the codebook: expected 0 to 16"):
        codec.decode(torch.full((1, 2, 2), 17))
    with pytest.raises(ValueError, match=r"tokens has grid \(4,\): expected \(2, 2\)"):
        codec.check(torch.zeros(1, 4).long())
