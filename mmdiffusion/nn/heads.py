"""How MT-Diffusion reads a modality off the denoiser: heads, and what their output says.

Chen et al. 2024, arXiv 2407.17571, Sec. 3: classes by a categorical head (cross-entropy), all else by a Gaussian one
(mean squared error of its mean).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffusion.nn.denoiser import Denoised
from mmdiffusion.nn.encoders import Encoder, Mean, OwnToken, Shape, Value, as_mean, mean_shape
from mmdiffusion.nn.layers import Block, TimeEmbedding
from mmdiffusion.nn.modalities import Image, patchify, unpatchify
from mmdiffusion.nn.positions import sine_positions
from mmdiffusion.types import ImageSpec, LabelSpec, MaskedSpec, SegmentationSpec, Spec

Output = Float[Tensor, "b ..."]
"""Of a head: logits of classes, along axis 1, or the estimate of a mean."""


# What an output says -------------------------------------------------------------------------------------------


def is_categorical(spec: Spec) -> bool:
    """Whether a modality is made of classes."""
    return isinstance(spec, LabelSpec | SegmentationSpec)


def mean_of(output: Output, spec: Spec) -> Mean:
    """The modality's mean as a head sees it: probabilities of classes, or the estimate itself."""
    return output.softmax(1) if is_categorical(spec) else output


def value_of(output: Output, spec: Spec) -> Value:
    """The modality's most probable value; of a masked image, what can be seen where that is more likely than not."""
    if is_categorical(spec):
        return output.argmax(1)
    if isinstance(spec, MaskedSpec):
        visible = (output[:, -1:] > 0.5).to(output.dtype)
        return torch.cat([output[:, :-1].clamp(-1, 1) * visible, visible], dim=1)
    return output.clamp(-1, 1) if isinstance(spec, ImageSpec) else output


def surprise(output: Output, value: Value, spec: Spec) -> Float[Tensor, " b"]:
    """Cross-entropy, or squared error of the mean: averaged over pixels and numbers (arXiv 2407.17571, Sec. 3).

    Args:
        output: Of a head.
        value: The modality.
        spec: Its description.
    """
    if is_categorical(spec):
        entropy = F.cross_entropy(output, value, reduction="none")
        return entropy.flatten(1).mean(1) if entropy.ndim > 1 else entropy
    return (output - as_mean(value, spec)).square().flatten(1).mean(1)


# Heads ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeadShape:
    """What a head is built for.

    Args:
        spec: The modality.
        tap_widths: Width of each tap of the denoiser, by name, in the order they are computed.
        image_shape: Channels, height and width of the image.
        patch_size: Pixels a side of one token of the denoiser's finest level.
        encoder: How the modality is encoded.
    """

    spec: Spec
    tap_widths: dict[str, int]
    image_shape: Shape
    patch_size: int
    encoder: Encoder


class Head(nn.Module, ABC):
    """Reads a modality at a noisy state.

    Args:
        shape: What it is built for.
    """

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.spec, self.mean_shape = shape.spec, mean_shape(shape.spec)

    @abstractmethod
    def forward(
        self,
        denoised: Denoised,
        prediction: Image,
        own: Float[Tensor, "b e h w"],
        time: Float[Tensor, " b"],
    ) -> Output:
        """Read the modality.

        Args:
            denoised: Output of the denoiser at z_t, with its taps.
            prediction: What it predicts of the image, at all pixels.
            own: What it puts out in the channels that are the modality's own; none where there are no such.
            time: t / T in [0, 1].
        """


def check_tap(tap: str, shape: HeadShape) -> str:
    """Check the name of a tap, and find the last one.

    Args:
        tap: Its name, or "last".
        shape: What the head is built for.

    Raises:
        ValueError: if there is no such tap.
    """
    if tap == "last":
        return list(shape.tap_widths)[-1]
    if tap not in shape.tap_widths:
        raise ValueError(f"tap is {tap!r}: expected last or one of {', '.join(shape.tap_widths)}")
    return tap


def check_vector(shape: HeadShape, head: str) -> int:
    """Check that a modality is a label or a vector, and say how many numbers its mean has.

    Args:
        shape: What the head is built for.
        head: The head's name.

    Raises:
        ValueError: if it is a picture or map.
    """
    size = mean_shape(shape.spec)
    if len(size) != 1:
        raise ValueError(f"{head} has {shape.spec}: expected a label or a vector of features; take TokensHead")
    return size[0]


class MiddleHead(Head):
    """One layer on the mean of a tap: variant M of MT-Diffusion (arXiv 2407.17571; mean pooling is our choice).

    Args:
        shape: What it is built for.
        tap: Name of the tap, or "last".
    """

    def __init__(self, shape: HeadShape, tap: str = "mid") -> None:
        super().__init__(shape)
        size = check_vector(shape, "MiddleHead")
        self.tap = check_tap(tap, shape)
        self.norm = nn.LayerNorm(shape.tap_widths[self.tap])
        self.linear = nn.Linear(shape.tap_widths[self.tap], size)

    def forward(
        self,
        denoised: Denoised,
        prediction: Image,
        own: Float[Tensor, "b e h w"],
        time: Float[Tensor, " b"],
    ) -> Output:
        """Read the tap; see `Head.forward`."""
        pooled = denoised.taps[self.tap].flatten(1, -2).mean(1)
        return self.linear(self.norm(pooled.to(self.norm.weight.dtype)))


class OutputHead(Head):
    """A small transformer on the denoiser's output: variant E of MT-Diffusion, image first, label second.

    The paper puts a noisy-image classifier behind the denoiser's output (arXiv 2407.17571). With `prediction: clean`
    that output is the estimate of z_0; from a predicted noise or velocity none can be had before the modality is known,
    because a hidden one's encoding is part of z_t.

    Args:
        shape: What it is built for.
        patch_size: Pixels a side of one token.
        width: Width of its tokens.
        depth: Number of blocks.
        num_heads: Attention heads.
        detach_image_path: Let no gradient reach the denoiser through its output: what reads does not change what draws.
    """

    def __init__(
        self,
        shape: HeadShape,
        patch_size: int = 2,
        width: int = 64,
        depth: int = 2,
        num_heads: int = 2,
        detach_image_path: bool = False,
    ) -> None:
        super().__init__(shape)
        size, (channels, height, _) = check_vector(shape, "OutputHead"), shape.image_shape
        if patch_size < 1 or height % patch_size:
            raise ValueError(f"patch_size of the head is {patch_size}: expected a divisor of {height}")
        self.patch_size, self.detach_image_path = patch_size, detach_image_path
        self.time = TimeEmbedding(width)
        self.embed = nn.Linear(channels * patch_size**2, width)
        side = height // patch_size
        self.position = nn.Parameter(sine_positions((side, side), width).flatten(0, 1)[None])
        self.blocks = nn.ModuleList(Block(width, num_heads, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, size)

    def forward(
        self,
        denoised: Denoised,
        prediction: Image,
        own: Float[Tensor, "b e h w"],
        time: Float[Tensor, " b"],
    ) -> Output:
        """Read the output; see `Head.forward`."""
        if self.detach_image_path:
            prediction = prediction.detach()
        x = self.embed(patchify(prediction, self.patch_size).flatten(1, 2)) + self.position
        vector = nn.functional.silu(self.time(time))
        for block in self.blocks:
            x, _ = block(x, vector, None)
        return self.linear(self.norm(x.mean(1).to(self.norm.weight.dtype)))


class TokensHead(Head):
    """Pictures and maps off each token of a tap: normalisation and one layer, as the denoiser's own output block.

    The paper copies the output block of its U-Net (arXiv 2407.17571, Sec. 3).

    Args:
        shape: What it is built for.
        tap: Name of a tap, or "last".

    Raises:
        ValueError: if the modality's side and the tap's tokens do not fit.
    """

    def __init__(self, shape: HeadShape, tap: str = "last") -> None:
        super().__init__(shape)
        if len(self.mean_shape) != 3:
            raise ValueError(f"TokensHead has {shape.spec}: expected a picture or map; take MiddleHead")
        self.tap = check_tap(tap, shape)
        names = list(shape.tap_widths)
        level = min(names.index(self.tap), len(names) - 1 - names.index(self.tap))
        tokens = shape.image_shape[1] // (shape.patch_size * 2**level)
        if self.mean_shape[1] % tokens:
            raise ValueError(
                f"TokensHead has {shape.spec}: tap {self.tap!r} has {tokens} tokens a side, expected a divisor of "
                f"{self.mean_shape[1]}"
            )
        self.patch_size = self.mean_shape[1] // tokens
        self.norm = nn.LayerNorm(shape.tap_widths[self.tap])
        self.linear = nn.Linear(shape.tap_widths[self.tap], self.mean_shape[0] * self.patch_size**2)

    def forward(
        self,
        denoised: Denoised,
        prediction: Image,
        own: Float[Tensor, "b e h w"],
        time: Float[Tensor, " b"],
    ) -> Output:
        """Read the tap; see `Head.forward`."""
        tokens = denoised.taps[self.tap]
        return unpatchify(self.linear(self.norm(tokens.to(self.norm.weight.dtype))), self.patch_size)


class OwnHead(Head):
    """What the denoiser puts out where the modality is alone: its own channels, or its own token.

    Args:
        shape: What it is built for; the encoder is `OwnChannels` or `OwnToken`.

    Raises:
        ValueError: for another encoder.
    """

    def __init__(self, shape: HeadShape) -> None:
        super().__init__(shape)
        if not shape.encoder.own_channels:
            raise ValueError(f"OwnHead has {type(shape.encoder).__name__}: expected OwnChannels or OwnToken")
        self.factor = 1 if shape.encoder.is_vector else shape.image_shape[1] // self.mean_shape[1]
        self.norm = self.linear = None
        if isinstance(shape.encoder, OwnToken):
            self.norm = nn.LayerNorm(shape.encoder.width)
            self.linear = nn.Linear(shape.encoder.width, math.prod(self.mean_shape))

    def forward(
        self,
        denoised: Denoised,
        prediction: Image,
        own: Float[Tensor, "b e h w"],
        time: Float[Tensor, " b"],
    ) -> Output:
        """Read the token, or the channels, coarser maps averaged over their pixels; see `Head.forward`."""
        if self.norm is not None and self.linear is not None:
            assert denoised.query is not None
            return self.linear(self.norm(denoised.query[:, 0].to(self.norm.weight.dtype)))
        return F.avg_pool2d(own, self.factor) if self.factor > 1 else own
