"""Codecs of images."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.codecs.base import TokenCodec
from mmdiffusion.types import DataSpec, ImageSpec, TokenSpec


class GreyLevels(TokenCodec):
    """A pixel's grey level is its token: exact for images of few levels, such as `Digits`.

    Args:
        spec: The data, which has images of one channel.
    """

    def __init__(self, spec: DataSpec) -> None:
        image = spec.get("image")
        if not isinstance(image, ImageSpec) or image.channels != 1:
            raise ValueError(f"spec has image {image}: GreyLevels expects images of one channel, such as Digits")
        super().__init__(TokenSpec(image.num_levels, (image.size, image.size)), "image")

    def encode(self, data: Float[Tensor, "b 1 h w"]) -> Int[Tensor, "b h w"]:
        """Nearest level of each pixel.

        Args:
            data: Images in [-1, 1].
        """
        return ((data[:, 0] + 1) / 2 * (self.latent.num_codes - 1)).round().long().clamp(0, self.latent.num_codes - 1)

    def decode(self, tokens: Int[Tensor, "b h w"]) -> Float[Tensor, "b 1 h w"]:
        """Images in [-1, 1]; see `TokenCodec`."""
        self.check(tokens)
        return tokens[:, None].to(torch.float32) / (self.latent.num_codes - 1) * 2 - 1
