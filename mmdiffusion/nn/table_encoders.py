"""One fixed picture for each class of a label, or number of a vector: random, of a file, or made by the denoiser."""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from mmdiffusion.nn.encoders import Encoder, Mean, Shape
from mmdiffusion.types import LabelSpec, Spec


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
        super().__init__(spec, shape, scale)
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
        super().__init__(spec, shape, scale)
        if not isinstance(spec, LabelSpec):
            raise ValueError(f"BackboneEncoder has {spec}: expected a label")
        if not 0 < time <= 1 or every_n_steps < 1:
            raise ValueError(
                f"time is {time}, every_n_steps is {every_n_steps}: expected above 0 up to 1, and at least 1"
            )
        self.time, self.every_n_steps = time, every_n_steps
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
