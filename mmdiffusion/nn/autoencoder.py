"""A convolutional autoencoder whose middle is tokens: images on a 2-D grid, audio on a 1-D one."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffusion.nn.quantiser import Quantiser
from mmdiffusion.types import ImageSpec, MusicSpec, TokenSpec

CONVOLUTIONS = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d)}


class Reconstruction(NamedTuple):
    """What an autoencoder makes of a batch.

    Attributes:
        data: The batch again, not clamped.
        tokens: Its tokens.
        commitment: Mean squared distance of the encodings to their codes.
    """

    data: Float[Tensor, "b *size"]
    tokens: Int[Tensor, "b *grid"]
    commitment: Float[Tensor, ""]


class QuantisedAutoencoder(nn.Module):
    """VQ-VAE (van den Oord et al. 2017, arXiv 1711.00937): strided convolutions, residual blocks, a codebook between.

    All blocks work on the grid of tokens, where they are cheap; channels halve from each scale to the next finer one.
    Sizes that the strides do not divide are filled up with zeros at their end, and cut again.

    Args:
        spec: The data: images or audio.
        num_codes: Number of codes.
        code_width: Width of a code.
        strides: Factors, 2 or more, by which the encoder shortens every axis, one after the other.
        width: Channels on the grid of tokens.
        depth: Residual blocks on each side.
        dilation_growth: Factor of the dilation from one residual block to the next: 1 for images, 3 hears further in
            audio (Dhariwal et al. 2020, arXiv 2005.00341).
        codebook_decay: Share of a code's old mean that is kept, per batch.
        revive_below: Mean number of uses per step, over all processes, below which a code starts again at an encoding
            of the batch; 0 for never.
    """

    def __init__(
        self,
        spec: ImageSpec | MusicSpec,
        num_codes: int = 256,
        code_width: int = 16,
        strides: Sequence[int] = (2, 2),
        width: int = 128,
        depth: int = 2,
        dilation_growth: int = 1,
        codebook_decay: float = 0.99,
        revive_below: float = 1.0,
    ) -> None:
        super().__init__()
        check(num_codes, strides, width, depth, codebook_decay)
        self.settings: dict[str, Any] = {
            "num_codes": num_codes,
            "code_width": code_width,
            "strides": list(strides),
            "width": width,
            "depth": depth,
            "dilation_growth": dilation_growth,
            "codebook_decay": codebook_decay,
            "revive_below": revive_below,
        }
        is_image = isinstance(spec, ImageSpec)
        channels, self.size = (spec.channels, (spec.size, spec.size)) if is_image else (1, (spec.num_samples,))
        self.step = torch.Size(strides).numel()
        self.latent = TokenSpec(num_codes, tuple(-(-length // self.step) for length in self.size))

        axes = len(self.size)
        convolution = CONVOLUTIONS[axes][0]
        widths = [channels, *(width // 2**scale for scale in reversed(range(len(strides))))]
        dilations = [dilation_growth**i for i in range(depth)]
        down = [
            layer
            for (fine, coarse), s in zip(pairwise(widths), strides, strict=True)
            for layer in (shorten(axes, fine, coarse, s), nn.SiLU())
        ]
        blocks = (ResidualBlock(axes, width, dilation) for dilation in dilations)
        self.encoder = nn.Sequential(*down[:-1], *blocks, nn.SiLU(), convolution(width, code_width, 1))
        self.quantiser = Quantiser(num_codes, code_width, codebook_decay, revive_below)
        blocks = (ResidualBlock(axes, width, dilation) for dilation in reversed(dilations))
        up = [
            layer
            for (coarse, fine), s in zip(pairwise(reversed(widths)), reversed(strides), strict=True)
            for layer in (nn.SiLU(), lengthen(axes, coarse, fine, s))
        ]
        self.decoder = nn.Sequential(convolution(code_width, width, 3, padding=1), *blocks, *up)

    def forward(self, data: Float[Tensor, "b *size"], generator: torch.Generator | None = None) -> Reconstruction:
        """Through tokens and back; in training mode the codebook takes the batch in.

        Args:
            data: Images (b c h w) or audio (b s), in [-1, 1].
            generator: Source of the codes that start again; needed in training mode only.
        """
        codes, tokens, commitment = self.quantiser(self.encodings(data), generator)
        return Reconstruction(self.rebuilt(codes), tokens.unflatten(1, self.latent.grid), commitment)

    @torch.no_grad()
    def encode(self, data: Float[Tensor, "b *size"]) -> Int[Tensor, "b *grid"]:
        """Tokens; the codebook stays as it is.

        Args:
            data: Images (b c h w) or audio (b s), in [-1, 1].
        """
        return self.quantiser.tokens(self.encodings(data)).unflatten(1, self.latent.grid)

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "b *grid"]) -> Float[Tensor, "b *size"]:
        """Images (b c h w) or audio (b s), in [-1, 1].

        Args:
            tokens: Tokens.
        """
        return self.rebuilt(self.quantiser.codes(tokens.flatten(1))).float().clamp(-1, 1)

    def encodings(self, data: Float[Tensor, "b *size"]) -> Float[Tensor, "b n d"]:
        """What is quantised, position by position."""
        data = data if len(self.size) == 2 else data[:, None]
        missing = [-length % self.step for length in reversed(self.size)]
        data = F.pad(data, [part for length in missing for part in (0, length)]) if any(missing) else data
        return self.encoder(data).flatten(2).transpose(1, 2)

    def rebuilt(self, codes: Float[Tensor, "b n d"]) -> Float[Tensor, "b *size"]:
        """What the decoder makes of codes."""
        data = self.decoder(codes.transpose(1, 2).unflatten(2, self.latent.grid))
        if len(self.size) == 1:
            return data[:, 0, : self.size[0]]
        return data[:, :, : self.size[0], : self.size[1]]


class ResidualBlock(nn.Module):
    """x + a 1-wide convolution of a 3-wide one (van den Oord et al. 2017, Sec. 4.1).

    Args:
        axes: 1 or 2.
        width: Channels.
        dilation: Distance of neighbouring taps.
    """

    def __init__(self, axes: int, width: int, dilation: int) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[axes][0]
        wide = convolution(width, width, 3, padding=dilation, dilation=dilation)
        self.layers = nn.Sequential(nn.SiLU(), wide, nn.SiLU(), convolution(width, width, 1))

    def forward(self, x: Float[Tensor, "b d *grid"]) -> Float[Tensor, "b d *grid"]:
        """Channels first."""
        return x + self.layers(x)


def shorten(axes: int, width: int, wider: int, stride: int) -> nn.Module:
    """Convolution that divides every axis, a multiple of `stride`, by it."""
    return CONVOLUTIONS[axes][0](width, wider, 2 * stride, stride, padding=-(-stride // 2))


def lengthen(axes: int, width: int, narrower: int, stride: int) -> nn.Module:
    """Transposed convolution that multiplies every axis by `stride`; all outputs see as many inputs."""
    return CONVOLUTIONS[axes][1](
        width, narrower, 2 * stride, stride, padding=-(-stride // 2), output_padding=stride % 2
    )


def check(num_codes: int, strides: Sequence[int], width: int, depth: int, codebook_decay: float) -> None:
    """Check the settings of an autoencoder.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    if num_codes < 2:
        raise ValueError(f"num_codes is {num_codes}: expected at least 2")
    if not strides or min(strides) < 2:
        raise ValueError(f"strides is {list(strides)}: expected at least one, each 2 or more")
    if width % 2 ** (len(strides) - 1):
        raise ValueError(f"width is {width}: expected a multiple of {2 ** (len(strides) - 1)}, halved at each scale")
    if depth < 0:
        raise ValueError(f"depth is {depth}: expected 0 or more")
    if not 0 <= codebook_decay < 1:
        raise ValueError(f"codebook_decay is {codebook_decay}: expected 0 up to, but not including, 1")
