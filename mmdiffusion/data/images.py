"""Pictures from files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from mmdiffusion.types import ImageSpec

_MODES = {1: "L", 3: "RGB"}
_ALIKE = {1: ("L", "1"), 3: ("RGB", "RGBA", "P", "L")}
"""Modes that are converted without loss of what a picture shows; where there is transparency, it must be unused."""


def read_images(paths: Sequence[str | Path], spec: ImageSpec) -> Float[Tensor, "b c h w"]:
    """Read pictures as a batch holds them.

    Args:
        paths: Files of any format that Pillow reads.
        spec: Channels and size that are expected, such as a model's `image`.

    Returns:
        (b, channels, size, size) in [-1, 1].

    Raises:
        ValueError: if a file is missing or no picture, or has another size or mode.
    """
    return torch.stack([_read(Path(path), spec) for path in paths])


def _read(path: Path, spec: ImageSpec) -> Float[Tensor, "c h w"]:
    try:
        with Image.open(path) as opened:
            picture = opened.copy()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: expected a picture") from error
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is no picture that can be read: {error}") from error
    if picture.size != (spec.size, spec.size):
        raise ValueError(
            f"{path} has {picture.width} x {picture.height} pixels: expected {spec.size} x {spec.size}; crop it to a "
            f"square and resize it, Image.resize(({spec.size}, {spec.size}))"
        )
    if picture.mode not in _ALIKE[spec.channels] or is_transparent(picture):
        raise ValueError(
            f"{path} has mode {picture.mode}: expected an opaque picture of mode {_MODES[spec.channels]}; convert it, "
            f"Image.convert('{_MODES[spec.channels]}')"
        )
    return pil_to_tensor(picture.convert(_MODES[spec.channels])).float() / 127.5 - 1


def is_transparent(picture: Image.Image) -> bool:
    """Whether some pixel lets through what is behind it."""
    return picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema()[0] < 255  # pyright: ignore
