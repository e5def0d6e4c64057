"""Codecs of images."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.codecs.base import TokenCodec
from mmdiffusion.types import ImageSpec, Spec, TokenSpec


class GreyLevels(TokenCodec):
    """A pixel's grey level is its token: exact for images of few levels, such as `Digits`.

    Args:
        spec: The images; one channel.
    """

    def __init__(self, spec: Spec) -> None:
        if not isinstance(spec, ImageSpec) or spec.channels != 1:
            raise ValueError(f"codec is GreyLevels, the data is {spec}: expected images of one channel")
        super().__init__(TokenSpec(spec.num_levels, (spec.size, spec.size)))

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
