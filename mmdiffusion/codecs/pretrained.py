"""Weights of other libraries, from a folder on this machine: nothing is downloaded, nothing is left to chance."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmdiffusion.types import ImageSpec


def check_folder(path: str, field: str, expected: str | tuple[str, ...], example: str) -> None:
    """Check that a folder holds a model of the kind wanted, before any library reads it.

    Args:
        path: The folder.
        field: Entry of its `config.json` that names the kind.
        expected: Value of that entry, or several that will do.
        example: A public model of this kind on the Hugging Face hub.

    Raises:
        ValueError: naming the path, what was found there, and how to get a folder that is right.
    """
    remedy = f"get one with `hf download {example} --local-dir FOLDER`"
    config, kinds = Path(path) / "config.json", (expected,) if isinstance(expected, str) else expected
    if not config.is_file():
        raise ValueError(
            f"path is {path}: expected a folder with a {kinds[0]} model, but {config} is missing; {remedy}"
        )
    try:
        found = json.loads(config.read_text(encoding="utf-8")).get(field)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"path is {path}: {config} is no configuration; {remedy}") from error
    if found not in kinds:
        wanted = " or ".join(map(repr, kinds))
        raise ValueError(f"path is {path}: {field} is {found!r}, expected {wanted}; {remedy}")


def load(kind: Any, path: str, **options: bool) -> Any:
    """A pretrained network from its folder, complete or not at all.

    Args:
        kind: Its class, with `from_pretrained`.
        path: The folder; its weights are safetensors, or pickles that hold tensors only: both libraries refuse others.
        options: Of `from_pretrained`.

    Raises:
        ValueError: if weights are missing, or cannot be read.
    """
    try:
        with torch.random.fork_rng(devices=[]), quiet():  # a library may draw weights before it reads them
            network, report = kind.from_pretrained(path, local_files_only=True, output_loading_info=True, **options)
    except Exception as error:
        raise ValueError(f"path is {path}: its weights cannot be read; {error}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(f"path is {path}: its weights lack {missing[0]} and {len(missing) - 1} more; get it anew")
    assert isinstance(network, nn.Module)
    return network


@contextmanager
def quiet() -> Iterator[None]:
    """Keep libraries from listing the weights that are not read, such as those of CLIP's other tower."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def latent_side(config: Any, image: ImageSpec, path: str) -> int:
    """Pixels a side of what an image autoencoder of diffusers makes of images.

    Args:
        config: The autoencoder's.
        image: The images.
        path: Where its weights are from.

    Raises:
        ValueError: if it was built for other channels, or does not divide the images' size.
    """
    if not config.in_channels == config.out_channels == image.channels:
        raise ValueError(
            f"path is {path}: in_channels is {config.in_channels}, out_channels is {config.out_channels}; "
            f"expected {image.channels} of each, the channels of the data"
        )
    factor = 2 ** (len(config.block_out_channels) - 1)
    if image.size % factor:
        raise ValueError(f"image has size {image.size}: the weights at {path} expect a multiple of {factor}")
    return image.size // factor


def needs(extra: str, library: str, error: ImportError) -> ValueError:
    """What to say when a library is not installed."""
    return ValueError(f"{library} is missing: install it with `pip install 'mmdiffusion[{extra}]'` ({error})")
