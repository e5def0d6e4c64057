"""Pictures with a class for each pixel: any two folders, and Cityscapes as it comes."""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from mmdiffusion.data.files import DamagedError
from mmdiffusion.data.pair_layouts import PairLayout, Pairs, check_sizes, matched, size_of
from mmdiffusion.data.pixels import Pixels, open_picture, read_bytes, read_pixels
from mmdiffusion.types import SegmentationSpec

UNLABELLED = 255
"""In files: no class."""
NO_CLASS = 255
"""In a table of classes: the number stands for none."""
CITYSCAPES = (
    "unlabelled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road",
    "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole",
    "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck",
    "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""Cityscapes' label ids 0 to 33."""
_PUBLISHED = (
    ("leftImg8bit", "gtFine"),
    ("leftImg8bit_trainvaltest/leftImg8bit", "gtFine_trainvaltest/gtFine"),
)


def class_table(classes: Sequence[int]) -> UInt8[np.ndarray, " values"]:
    """The class of each number in a file, as `read_classes` takes it.

    Args:
        classes: Class of the numbers 0, 1 and so on; further ones are none, and `UNLABELLED` is class 0.
    """
    table = np.full(256, NO_CLASS, np.uint8)
    table[: len(classes)] = classes
    table[UNLABELLED] = 0
    return table


def read_classes(path: Path, table: UInt8[np.ndarray, " values"]) -> UInt8[Tensor, "h w"]:
    """Read a map of classes.

    Args:
        path: File of one channel of 8 bits, or with a palette, whose numbers are read.
        table: Class of each of the 256 numbers; `NO_CLASS` where it is none.

    Raises:
        DamagedError: if it is no such file, or holds a number that is no class.
    """
    picture = open_picture(read_bytes(path), path)
    if picture.mode not in ("L", "P"):
        raise DamagedError(
            path,
            f"mode {picture.mode}, expected numbers of classes in 8 bits (L or P); maps of instances or of colours "
            "are not read, take the one of labels",
        )
    try:
        values = np.array(picture)
    except Exception as error:  # a damaged picture can fail in any way
        raise DamagedError(path, error) from error
    classes = table[values]
    if (classes == NO_CLASS).any():
        raise DamagedError(path, f"it has {values[classes == NO_CLASS][0]}, which is the number of no class")
    return torch.from_numpy(classes)


class ClassMaps(PairLayout):
    """Pictures in one folder and maps of classes in another, under equal names but for extensions.

    A batch has `segmentation`, where 0 is what no class covers (255 in the files) and the files' class n is n + 1.

    Args:
        num_classes: Classes in the files, 0 to `num_classes - 1`; at most 254.
        image: Folder of the images; {split} stands for train, val or test.
        classes: Folder of the maps, of 8 bits; maps of instances are not read.
    """

    entry = "segmentation"

    def __init__(self, num_classes: int, image: str = "{split}_img", classes: str = "{split}_label") -> None:
        if not 1 <= num_classes < UNLABELLED:
            raise ValueError(f"num_classes is {num_classes}: expected 1 to {UNLABELLED - 1}")
        for name, folder in (("image", image), ("classes", classes)):
            if "{split}" not in folder:
                raise ValueError(f"{name} is {folder!r}: expected a folder with {{split}} in its name")
        self.image, self.classes = image, classes
        self.names = ("unlabelled", *map(str, range(num_classes)))
        self.table = class_table(range(1, num_classes + 1))
        self.what = f"pictures in {image} and maps of equal names in {classes}"

    def pairs(self, places: Sequence[Path], split: str) -> Pairs | None:
        """Index one split; see `PairLayout`."""
        return matched(places, self.image.replace("{split}", split), self.classes.replace("{split}", split))

    def read(self, image: Path, second: Path) -> tuple[Pixels, UInt8[Tensor, "h w"]]:
        """Read a picture and its map; see `PairLayout`."""
        pixels, classes = read_pixels(image), read_classes(second, self.table)
        check_sizes(size_of(pixels), size_of(classes), image, second)
        return pixels, classes

    def spec(self, size: int) -> SegmentationSpec:
        """The classes; see `PairLayout`."""
        return SegmentationSpec(self.names, size)


class Cityscapes(ClassMaps):
    """Cityscapes' street scenes and their 34 label ids, 0 for what is unlabelled.

    As unpacked (`leftImg8bit/train/<city>/`, `gtFine/train/<city>/`; of gtFine the `_labelIds.png`), or as pix2pixHD
    sorts them (`train_img`, `train_label`). The published test maps are empty, so test is the published validation set.
    """

    published = MappingProxyType({"train": 2975})

    def __init__(self) -> None:
        super().__init__(len(CITYSCAPES))
        self.names, self.table = CITYSCAPES, class_table(range(len(CITYSCAPES)))
        self.what = (
            "Cityscapes: leftImg8bit/train/<city> and gtFine/train/<city> (leftImg8bit_trainvaltest.zip and "
            "gtFine_trainvaltest.zip of cityscapes-dataset.com, after registration), or train_img and train_label"
        )

    def pairs(self, places: Sequence[Path], split: str) -> Pairs | None:
        """Index one split; see `PairLayout`."""
        suffixes = ("_leftImg8bit", "_gtFine_labelIds")
        for images, maps in _PUBLISHED if split != "test" else ():
            if found := matched(places, f"{images}/{split}", f"{maps}/{split}", suffixes):
                return found
        return matched(places, f"{split}_img", f"{split}_label", suffixes)
