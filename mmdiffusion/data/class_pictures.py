"""Pictures with a class each: an index of a few bytes a picture, and a split that reads them."""

from array import array
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from mmdiffusion.data.crops import Crop
from mmdiffusion.data.files import Files, Sample
from mmdiffusion.data.pixels import read_pixels
from mmdiffusion.data.strings import Collector, Strings, tensor_of


class Pictures(NamedTuple):
    """Pictures of classes.

    Attributes:
        folder: Folder that the names are relative to.
        names: Files.
        labels: Number of the class of each.
    """

    folder: Path
    names: Strings
    labels: Int[Tensor, " n"]


class Collected:
    """Pictures while they are collected, without an object for each.

    Args:
        folder: Folder that names are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.names, self.labels = folder, Collector(), array("h")

    def __len__(self) -> int:
        """Pictures so far."""
        return len(self.names)

    def add(self, below: str, names: Sequence[str], label: int) -> None:
        """Add pictures of a class.

        Args:
            below: Their folder, relative to the one of all.
            names: Files in it.
            label: Number of the class.
        """
        for name in names:
            self.names.append(f"{below}/{name}")
            self.labels.append(label)

    def pictures(self) -> Pictures:
        """What was collected, in the same memory: nothing may be added afterwards."""
        return Pictures(self.folder, self.names.strings(), tensor_of(self.labels, torch.int16))


class ClassPictures(Files):
    """A split of pictures with labels.

    Args:
        pictures: What there is.
        crop: How they become squares.
        max_bad_fraction: Share of samples that may be damaged, in [0, 1).
        seed: Seed of random crops.
    """

    def __init__(self, pictures: Pictures, crop: Crop, max_bad_fraction: float, seed: int) -> None:
        super().__init__(len(pictures.names), max_bad_fraction, seed)
        self.pictures, self.crop = pictures, crop

    def read(self, row: int, generator: torch.Generator) -> Sample:
        """One picture and its label; see `Files`."""
        pixels = read_pixels(self.pictures.folder / self.pictures.names[row])
        return {"image": self.crop(pixels, generator)} | self.tell(row, generator)

    @property
    def told(self) -> Collection[str]:
        """The label; see `Files`."""
        return ("label",)

    def tell(self, row: int, generator: torch.Generator) -> Sample:
        """The label; see `Files`."""
        return {"label": int(self.pictures.labels[row])}
