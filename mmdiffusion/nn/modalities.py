"""Modalities as the denoiser meets them: images as patches, labels as encodings in image space and as heads."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmdiffusion.nn.denoiser import Denoised
from mmdiffusion.nn.layers import Block, TimeEmbedding
from mmdiffusion.nn.positions import sine_positions

Image = Float[Tensor, "b c h w"]
Logits = Float[Tensor, "b k"]


def patchify(image: Image, patch_size: int) -> Float[Tensor, "b rows columns d"]:
    """Cut images into square patches, one token each, channels last."""
    return rearrange(image, "b c (h i) (w j) -> b h w (c i j)", i=patch_size, j=patch_size)


def unpatchify(tokens: Float[Tensor, "b rows columns d"], patch_size: int) -> Image:
    """Inverse of `patchify`."""
    return rearrange(tokens, "b h w (c i j) -> b c (h i) (w j)", i=patch_size, j=patch_size)


class LabelTable(nn.Module):
    """Fixed encoding of a class label in image space: orthogonal random images, nothing to learn.

    MT-Diffusion asks for encoders without trainable parameters (arXiv 2407.17571, Sec. 3): a learned one could lower
    the loss by growing.

    Args:
        num_classes: Number of classes, at most the number of pixels.
        shape: Channels, height and width of the image space.
        scale: Root mean square of an encoding.
        seed: Seed of the images.
    """

    table: Tensor

    def __init__(self, num_classes: int, shape: tuple[int, int, int], scale: float, seed: int = 0) -> None:
        super().__init__()
        size = shape[0] * shape[1] * shape[2]
        if num_classes > size:
            raise ValueError(f"num_classes is {num_classes}: expected at most {size}, the numbers in an image")
        random = torch.randn(size, num_classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        basis = torch.linalg.qr(random).Q.T * (scale * size**0.5)
        self.register_buffer("table", basis.float().reshape(num_classes, *shape))

    @torch.no_grad()
    def forward(self, label: Int[Tensor, " b"]) -> Image:
        """Encoding of known labels."""
        return self.table[label]

    def expectation(self, probabilities: Logits) -> Image:
        """Mean encoding under class probabilities: the posterior mean the reverse step needs, not that of a guess."""
        return torch.einsum("bk,kchw->bchw", probabilities.to(self.table.dtype), self.table)


@dataclass(frozen=True)
class HeadShape:
    """What a head is built for.

    Args:
        tap_widths: Width of each tap of the denoiser, by name.
        image_shape: Channels, height and width of the image space.
        num_classes: Number of classes.
    """

    tap_widths: dict[str, int]
    image_shape: tuple[int, int, int]
    num_classes: int


class LabelHead(nn.Module, ABC):
    """Reads class logits at a noisy state."""

    @abstractmethod
    def forward(self, denoised: Denoised, prediction: Image, time: Float[Tensor, " b"]) -> Logits:
        """Class logits.

        Args:
            denoised: Output of the denoiser at z_t, with its taps.
            prediction: The same output as an image.
            time: t / T in [0, 1].
        """


class MiddleLabelHead(LabelHead):
    """One layer on the mean of a tap: variant M of MT-Diffusion (arXiv 2407.17571; mean pooling is our choice).

    Args:
        shape: What it is built for.
        tap: Name of the tap.
    """

    def __init__(self, shape: HeadShape, tap: str = "mid") -> None:
        super().__init__()
        if tap not in shape.tap_widths:
            raise ValueError(f"tap is {tap!r}: expected one of {', '.join(shape.tap_widths)}")
        self.tap = tap
        self.norm = nn.LayerNorm(shape.tap_widths[tap])
        self.linear = nn.Linear(shape.tap_widths[tap], shape.num_classes)

    def forward(self, denoised: Denoised, prediction: Image, time: Float[Tensor, " b"]) -> Logits:
        """Class logits from the tap; see `LabelHead.forward`."""
        pooled = denoised.taps[self.tap].flatten(1, -2).mean(1)
        return self.linear(self.norm(pooled.to(self.norm.weight.dtype)))


class OutputLabelHead(LabelHead):
    """A small transformer on the denoiser's output: variant E of MT-Diffusion, image first, label second.

    The paper puts a noisy-image classifier behind the denoiser's output (arXiv 2407.17571). With `prediction: clean`
    that output is the estimate of z_0; from a predicted noise or velocity none can be had before the label is known,
    because a hidden label's encoding is part of z_t. Gradients reach the denoiser.

    Args:
        shape: What it is built for.
        patch_size: Pixels a side of one token.
        width: Width of its tokens.
        depth: Number of blocks.
        num_heads: Attention heads.
    """

    def __init__(
        self,
        shape: HeadShape,
        patch_size: int = 2,
        width: int = 64,
        depth: int = 2,
        num_heads: int = 2,
    ) -> None:
        super().__init__()
        channels, height, _ = shape.image_shape
        if patch_size < 1 or height % patch_size:
            raise ValueError(f"patch_size of the label head is {patch_size}: expected a divisor of {height}")
        self.patch_size = patch_size
        self.time = TimeEmbedding(width)
        self.embed = nn.Linear(channels * patch_size**2, width)
        side = height // patch_size
        self.position = nn.Parameter(sine_positions((side, side), width).flatten(0, 1)[None])
        self.blocks = nn.ModuleList(Block(width, num_heads, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, shape.num_classes)

    def forward(self, denoised: Denoised, prediction: Image, time: Float[Tensor, " b"]) -> Logits:
        """Class logits from the output; see `LabelHead.forward`."""
        x = self.embed(patchify(prediction, self.patch_size).flatten(1, 2)) + self.position
        vector = nn.functional.silu(self.time(time))
        for block in self.blocks:
            x, _ = block(x, vector, None)
        return self.linear(self.norm(x.mean(1).to(self.norm.weight.dtype)))
