"""How MT-Diffusion takes a modality into the diffusion space: fixed encoders, without a gradient.

Chen et al. 2024, arXiv 2407.17571, Sec. 3: encoders have no parameters that train; a learned one could lower the loss
by growing. All are linear in the modality's *mean* (a label's probabilities, a picture itself), because a reverse step
needs the posterior mean of the encoding, and for a linear encoder that is the encoding of the posterior mean (derived).
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffusion.numbers import check_number
from mmdiffusion.types import FeatureSpec, ImageSpec, LabelSpec, MaskedSpec, SegmentationSpec, Spec

Shape = tuple[int, int, int]
Value = Float[Tensor, "b ..."] | Int[Tensor, "b ..."]
Mean = Float[Tensor, "b ..."]


def mean_shape(spec: Spec) -> tuple[int, ...]:
    """Shape of one sample's mean: a probability for each class, or the modality's own numbers.

    Raises:
        ValueError: if the modality is none that can be diffused with an image.
    """
    if isinstance(spec, LabelSpec):
        return (spec.num_classes,)
    if isinstance(spec, SegmentationSpec):
        return (len(spec.names), spec.size, spec.size)
    if isinstance(spec, ImageSpec):
        return (spec.channels, spec.size, spec.size)
    if isinstance(spec, MaskedSpec):
        return (spec.channels + 1, spec.size, spec.size)
    if isinstance(spec, FeatureSpec):
        return spec.shape
    raise ValueError(f"spec is {spec}: expected a label, a picture, a map of classes or features")


def as_mean(value: Value, spec: Spec) -> Mean:
    """A known value as a mean: certainty for classes, the numbers themselves for all else.

    Args:
        value: Values of the modality.
        spec: The modality.
    """
    if isinstance(spec, LabelSpec):
        return F.one_hot(value.long(), spec.num_classes).float()
    if isinstance(spec, SegmentationSpec):
        return F.one_hot(value.long(), len(spec.names)).movedim(-1, 1).float()
    return value


class Encoder(nn.Module, ABC):
    """Takes a modality into the diffusion space.

    Attributes:
        own_channels: Channels of the space that this modality alone writes to; 0 where it adds to the image's.
        is_vector: Whether these channels hold a vector, which the denoiser reads as one more token.

    Args:
        spec: The modality.
        shape: Channels, height and width of the image.
        scale: Size of the encoding, as each encoder says; above 0.

    Raises:
        ValueError: if `scale` is not finite or not above 0.
    """

    own_channels: int = 0
    is_vector: bool = False

    def __init__(self, spec: Spec, shape: Shape, scale: float = 1.0) -> None:
        super().__init__()
        check_number(f"scale of {type(self).__name__}", scale, above=0)
        self.spec, self.shape, self.scale, self.mean_shape = spec, shape, scale, mean_shape(spec)

    def advice(self) -> str:
        """What to do with a modality that an encoder of pictures refuses."""
        side = self.shape[1]
        if len(self.mean_shape) == 1:
            return "take TableEncoder"
        if side % self.mean_shape[1]:
            return f"for OwnChannels resize it in the data to a side that divides {side}, or leave it out of extras"
        return "take OwnChannels"

    @abstractmethod
    def forward(self, mean: Mean) -> Float[Tensor, "b e h w"]:
        """Encode a modality's mean: `own_channels`, or as many channels as the image has."""


class NoEncoder(Encoder):
    """Nothing is aggregated: the modality enters through the network alone, and is read by its head.

    Args:
        spec: The modality.
        shape: Channels, height and width of the image.
    """

    def __init__(self, spec: Spec, shape: Shape) -> None:
        super().__init__(spec, shape)

    def forward(self, mean: Mean) -> Float[Tensor, "b e h w"]:
        """Zeros; see `Encoder`."""
        return torch.zeros(len(mean), *self.shape, device=mean.device)


class IdentityEncoder(Encoder):
    """A picture is its own encoding (arXiv 2407.17571, Fig. 3); of a masked one, its colours.

    Args:
        spec: The modality, a picture with the image's channels and size.
        shape: Channels, height and width of the image.
        scale: Factor.

    Raises:
        ValueError: if it has another size.
    """

    def __init__(self, spec: Spec, shape: Shape, scale: float = 1.0) -> None:
        super().__init__(spec, shape, scale)
        own = (shape[0] + isinstance(spec, MaskedSpec), *shape[1:])
        if self.mean_shape != own:
            raise ValueError(
                f"IdentityEncoder has {spec}: expected {shape[0]} channels of {shape[1]} x {shape[2]}, as the image; "
                f"{self.advice()}"
            )

    @torch.no_grad()
    def forward(self, mean: Mean) -> Float[Tensor, "b e h w"]:
        """The picture times the factor; see `Encoder`."""
        return self.scale * mean[:, : self.shape[0]]


class PaletteEncoder(Encoder):
    """A map of classes as a picture: one fixed colour for each class, as far apart as random ones are.

    Args:
        spec: The modality, a map of classes of the image's size.
        shape: Channels, height and width of the image.
        scale: Root mean square of a colour.
        seed: Seed of the colours.

    Raises:
        ValueError: if it is no such map.
    """

    palette: Tensor

    def __init__(self, spec: Spec, shape: Shape, scale: float = 0.5, seed: int = 0) -> None:
        super().__init__(spec, shape, scale)
        if not isinstance(spec, SegmentationSpec) or spec.size != shape[1]:
            raise ValueError(f"PaletteEncoder has {spec}: expected a map of classes with {shape[1]} pixels a side")
        colours = torch.randn(len(spec.names), shape[0], generator=torch.Generator().manual_seed(seed))
        self.register_buffer("palette", scale * colours / colours.square().mean(1, keepdim=True).sqrt())

    @torch.no_grad()
    def forward(self, mean: Mean) -> Float[Tensor, "b e h w"]:
        """The colours' mean under the probabilities of each pixel; see `Encoder`."""
        return torch.einsum("bkhw,kc->bchw", mean.to(self.palette.dtype), self.palette)


class OwnChannels(Encoder):
    """A picture or map in channels of its own, beside the image's: nothing is added to the image.

    With `OneshotDrift` of strength 1 this is joint diffusion of the image and the map with one time, as ReDi's
    (Kouzelis et al. 2025, arXiv 2504.16064). Coarser maps are spread over the image's pixels.

    Args:
        spec: The modality: a picture, a masked one, a map of classes, or of features whose side divides the image's.
        shape: Channels, height and width of the image.
        scale: Factor; for features of unit variance, the deviation in the space.

    Raises:
        ValueError: if its size does not divide the image's.
    """

    def __init__(self, spec: Spec, shape: Shape, scale: float = 0.5) -> None:
        super().__init__(spec, shape, scale)
        if len(self.mean_shape) != 3 or shape[1] % self.mean_shape[1]:
            raise ValueError(
                f"OwnChannels has {spec}: expected a picture or map whose side divides {shape[1]}; {self.advice()}"
            )
        self.own_channels, self.factor = self.mean_shape[0], shape[1] // self.mean_shape[1]

    @torch.no_grad()
    def forward(self, mean: Mean) -> Float[Tensor, "b e h w"]:
        """The picture or map, at the image's size; see `Encoder`."""
        return self.scale * mean.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)


class OwnToken(Encoder):
    """A vector as a token of its own beside the image's, as REG's class token (Wu et al. 2025, arXiv 2507.01467).

    In the diffusion space its numbers fill channels of their own, row by row, and zeros the rest of them; the denoiser
    reads them as one query token. With `OneshotDrift` of strength 1 it is diffused with the image's time.

    Args:
        spec: The modality, a vector of features.
        shape: Channels, height and width of the image.
        scale: Factor.

    Raises:
        ValueError: if it is none.
    """

    is_vector = True

    def __init__(self, spec: Spec, shape: Shape, scale: float = 1.0) -> None:
        super().__init__(spec, shape, scale)
        if not isinstance(spec, FeatureSpec) or len(spec.shape) != 1:
            raise ValueError(f"OwnToken has {spec}: expected a vector of features")
        self.width = spec.shape[0]
        self.own_channels = math.ceil(self.width / (shape[1] * shape[2]))

    @torch.no_grad()
    def forward(self, mean: Mean) -> Float[Tensor, "b e h w"]:
        """The vector's numbers, row by row; see `Encoder`."""
        size = self.own_channels * self.shape[1] * self.shape[2]
        return (self.scale * F.pad(mean, (0, size - self.width))).unflatten(1, (self.own_channels, *self.shape[1:]))

    def vector(self, channels: Float[Tensor, "b e h w"]) -> Float[Tensor, "b d"]:
        """The numbers that a state's own channels hold."""
        return channels.flatten(1)[:, : self.width]
