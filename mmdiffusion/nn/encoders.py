"""How MT-Diffusion takes a modality into the diffusion space: fixed encoders, without a gradient.

Chen et al. 2024, arXiv 2407.17571, Sec. 3: encoders have no parameters that train; a learned one could lower the loss
by growing. All are linear in the modality's *mean* (a label's probabilities, a picture itself), because a reverse step
needs the posterior mean of the encoding, and for a linear encoder that is the encoding of the posterior mean (derived).
"""

import math
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

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
    """

    own_channels: int = 0
    is_vector: bool = False

    def __init__(self, spec: Spec, shape: Shape) -> None:
        super().__init__()
        self.spec, self.shape, self.mean_shape = spec, shape, mean_shape(spec)

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
    """Nothing is aggregated: the modality enters through the network alone, and is read by its head."""

    def forward(self, mean: Mean) -> Float[Tensor, "b e h w"]:
        """Zeros; see `Encoder`."""
        return torch.zeros(len(mean), *self.shape, device=mean.device)


class TableEncoder(Encoder):
    """One fixed picture for each class or number: orthogonal random ones, or those that a generator made once.

    Args:
        spec: The modality, which is a label or a vector.
        shape: Channels, height and width of the image.
        scale: Root mean square of the encoding of a class, or of a vector of unit variance.
        seed: Seed of random pictures.
        path: File of safetensors with pictures, `table` (k c h w), such as a frozen generator's of every class
            (arXiv 2407.17571, Fig. 3, choice 2), brought to `scale` all together; `None` for random ones.

    Raises:
        ValueError: if there are more random ones than an image has numbers, or the file does not fit.
    """

    table: Tensor

    def __init__(self, spec: Spec, shape: Shape, scale: float = 0.5, seed: int = 0, path: str | None = None) -> None:
        super().__init__(spec, shape)
        if len(self.mean_shape) != 1:
            raise ValueError(f"TableEncoder has {spec}: expected a label or a vector, see IdentityEncoder")
        (count,) = self.mean_shape
        table = orthogonal(count, shape, seed) if path is None else pictures_of(path, (count, *shape))
        norm = scale if isinstance(spec, LabelSpec) else scale / count**0.5
        self.register_buffer("table", norm * table)

    @torch.no_grad()
    def forward(self, mean: Mean) -> Float[Tensor, "b e h w"]:
        """The pictures' mean under the probabilities, or their sum by a vector's numbers; see `Encoder`."""
        return torch.einsum("bk,kchw->bchw", mean.to(self.table.dtype), self.table)


def orthogonal(count: int, shape: Shape, seed: int) -> Float[Tensor, "k c h w"]:
    """Random pictures at right angles to each other, of root mean square 1 (derived: QR).

    Args:
        count: How many.
        shape: Channels, height and width.
        seed: Seed.

    Raises:
        ValueError: if there are more of them than a picture has numbers.
    """
    size = math.prod(shape)
    if count > size:
        raise ValueError(f"TableEncoder has {count} classes: expected at most {size}, the numbers in an image")
    random = torch.randn(size, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (torch.linalg.qr(random).Q.T * size**0.5).float().reshape(count, *shape)


def pictures_of(path: str, shape: tuple[int, ...]) -> Float[Tensor, "k c h w"]:
    """Pictures from a file, of root mean square 1 all together.

    Args:
        path: File of safetensors with `table`.
        shape: Number of pictures, channels, height and width.

    Raises:
        ValueError: if there is none at `path`, or it is of another size.
    """
    if not Path(path).is_file():
        raise ValueError(f"path is {path}: expected a file of safetensors with `table`, there is none")
    try:
        table = load_file(path).get("table")
    except Exception as error:
        raise ValueError(f"path is {path}: it cannot be read as safetensors; {error}") from error
    if table is None or tuple(table.shape) != shape or not table.isfinite().all() or not table.any():
        found = "no table" if table is None else f"table {tuple(table.shape)}"
        raise ValueError(f"path is {path}: it holds {found}, expected finite pictures {shape}, not all of them zero")
    return table.float() / table.float().square().mean().sqrt()


class BackboneEncoder(Encoder):
    """The denoiser itself as the encoder of a label: what it makes of one fixed noise when shown each class.

    Choice 3 of MT-Diffusion (arXiv 2407.17571, Fig. 3), which leaves open what the backbone is given; the noise must
    not depend on z_t, or its posterior would no longer be that of Theorem 2 (derived). The pictures are made anew every
    few steps, without a gradient, less their mean, and brought to `scale`; at first they are zero.

    Args:
        spec: The modality, a label.
        shape: Channels, height and width of the image.
        scale: Root mean square of the encodings.
        time: t / T at which the denoiser is asked, in (0, 1].
        every_n_steps: Training steps from one making to the next.
        seed: Seed of the noise.

    Raises:
        ValueError: if the modality is no label, or a setting is out of range.
    """

    table: Tensor
    noise: Tensor

    def __init__(
        self,
        spec: Spec,
        shape: Shape,
        scale: float = 0.5,
        time: float = 0.9,
        every_n_steps: int = 50,
        seed: int = 0,
    ) -> None:
        super().__init__(spec, shape)
        if not isinstance(spec, LabelSpec):
            raise ValueError(f"BackboneEncoder has {spec}: expected a label")
        if not 0 < time <= 1 or every_n_steps < 1:
            raise ValueError(f"time is {time}, every_n_steps is {every_n_steps}: expected up to 1, and at least 1")
        self.scale, self.time, self.every_n_steps = scale, time, every_n_steps
        self.register_buffer("table", torch.zeros(spec.num_classes, *shape))
        noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("noise", noise, persistent=False)

    @torch.no_grad()
    def refresh(self, pictures: Float[Tensor, "k c h w"]) -> None:
        """Take what the denoiser makes of each class now.

        Args:
            pictures: Its predictions at the fixed noise.
        """
        centred = pictures.float() - pictures.float().mean(0)
        size = centred.square().mean().sqrt()
        self.table.copy_(self.scale * centred / size if size > 0 else centred)

    @torch.no_grad()
    def forward(self, mean: Mean) -> Float[Tensor, "b e h w"]:
        """The pictures' mean under the probabilities; see `Encoder`."""
        return torch.einsum("bk,kchw->bchw", mean.to(self.table.dtype), self.table)


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
        super().__init__(spec, shape)
        own = (shape[0] + isinstance(spec, MaskedSpec), *shape[1:])
        if self.mean_shape != own:
            raise ValueError(
                f"IdentityEncoder has {spec}: expected {shape[0]} channels of {shape[1]} x {shape[2]}, as the image; "
                f"{self.advice()}"
            )
        self.scale = scale

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
        super().__init__(spec, shape)
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
        super().__init__(spec, shape)
        if len(self.mean_shape) != 3 or shape[1] % self.mean_shape[1]:
            raise ValueError(
                f"OwnChannels has {spec}: expected a picture or map whose side divides {shape[1]}; {self.advice()}"
            )
        self.own_channels, self.scale, self.factor = self.mean_shape[0], scale, shape[1] // self.mean_shape[1]

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
        super().__init__(spec, shape)
        if not isinstance(spec, FeatureSpec) or len(spec.shape) != 1:
            raise ValueError(f"OwnToken has {spec}: expected a vector of features")
        self.width, self.scale = spec.shape[0], scale
        self.own_channels = math.ceil(self.width / (shape[1] * shape[2]))

    @torch.no_grad()
    def forward(self, mean: Mean) -> Float[Tensor, "b e h w"]:
        """The vector's numbers, row by row; see `Encoder`."""
        size = self.own_channels * self.shape[1] * self.shape[2]
        return (self.scale * F.pad(mean, (0, size - self.width))).unflatten(1, (self.own_channels, *self.shape[1:]))

    def vector(self, channels: Float[Tensor, "b e h w"]) -> Float[Tensor, "b d"]:
        """The numbers that a state's own channels hold."""
        return channels.flatten(1)[:, : self.width]
