"""Where pairs of pictures lie on disk, and how one is read: sheets, two folders, a picture and its map of classes."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from jaxtyping import UInt8
from torch import Tensor

from mmdiffusion.data.files import DamagedError
from mmdiffusion.data.folders import PICTURES, file_names
from mmdiffusion.data.pixels import Pixels, Size, picture_size, read_pixels
from mmdiffusion.data.strings import Strings
from mmdiffusion.types import ImageSpec, SegmentationSpec

Second = Pixels | UInt8[Tensor, "h w"]


class Pairs(NamedTuple):
    """Files of pairs, in the same order.

    Attributes:
        images: Pictures.
        seconds: What belongs to each, perhaps the same file.
    """

    images: Strings
    seconds: Strings


class PairLayout(ABC):
    """A way in which pairs lie in a folder.

    Attributes:
        entry: Name in a batch of what belongs to an image.
        what: What is expected, for messages.
        published: Pairs of a split, where they are known.
    """

    entry: str = "paired"
    what: str
    published: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def pairs(self, places: Sequence[Path], split: str) -> Pairs | None:
        """Index one split; `None` if it is not there.

        Args:
            places: Folders to look in.
            split: Name of the split in folders, such as train.

        Raises:
            ValueError: if something has no partner.
        """

    @abstractmethod
    def read(self, image: Path, second: Path) -> tuple[Pixels, Second]:
        """Read a pair: a picture, and a picture or map of classes of the same size.

        Args:
            image: The picture's file.
            second: The file of what belongs to it.

        Raises:
            DamagedError: if one cannot be read, or they do not fit.
        """

    def check(self, image: Path, second: Path) -> None:
        """Check that the two of a pair fit, as far as the headers of their files say; no pixel is read.

        Args:
            image: The picture's file.
            second: The file of what belongs to it.

        Raises:
            DamagedError: if one has no header, or they do not fit.
        """
        check_sizes(picture_size(image), picture_size(second), image, second)

    def spec(self, size: int) -> ImageSpec | SegmentationSpec:
        """What belongs to an image.

        Args:
            size: Pixels a side.
        """
        return ImageSpec(3, size)


class Sheets(PairLayout):
    """Both pictures side by side in one file, as pix2pix prepares them: `train/*.jpg`, `val/*.jpg`, `test/*.jpg`.

    Args:
        image: Which half is the image; the other is `paired`. pix2pix calls the left half A and the right one B.
    """

    what = "sheets of two pictures side by side in train/, and in val/ or test/"

    def __init__(self, image: Literal["left", "right"] = "right") -> None:
        self.image = image

    def pairs(self, places: Sequence[Path], split: str) -> Pairs | None:
        """Index one split; see `PairLayout`."""
        for folder in (place / split for place in places):
            if names := file_names(folder):
                files = Strings.of(str(folder / name) for name in names)
                return Pairs(files, files)
        return None

    def check(self, image: Path, second: Path) -> None:
        """Check that a sheet has two halves; see `PairLayout`."""
        check_halves(picture_size(image), image)

    def read(self, image: Path, second: Path) -> tuple[Pixels, Pixels]:
        """Read a sheet; see `PairLayout`."""
        sheet = read_pixels(image)
        check_halves(size_of(sheet), image)
        left, right = sheet.chunk(2, dim=2)
        return (left, right) if self.image == "left" else (right, left)


class TwoFolders(PairLayout):
    """Pictures in two folders, under equal names but for extensions.

    Args:
        image: Folder of the images; {split} stands for train, val or test, as in `{split}B` or `B/{split}`.
        paired: Folder of what belongs to them.
    """

    def __init__(self, image: str = "{split}B", paired: str = "{split}A") -> None:
        for name, folder in (("image", image), ("paired", paired)):
            if "{split}" not in folder:
                raise ValueError(f"{name} is {folder!r}: expected a folder with {{split}} in its name")
        self.image, self.paired = image, paired
        self.what = f"pictures of equal names in {image} and {paired}"

    def pairs(self, places: Sequence[Path], split: str) -> Pairs | None:
        """Index one split; see `PairLayout`."""
        return matched(places, self.image.replace("{split}", split), self.paired.replace("{split}", split))

    def read(self, image: Path, second: Path) -> tuple[Pixels, Pixels]:
        """Read two pictures; see `PairLayout`."""
        pixels, paired = read_pixels(image), read_pixels(second)
        check_sizes(size_of(pixels), size_of(paired), image, second)
        return pixels, paired


def matched(places: Sequence[Path], images: str, seconds: str, suffixes: tuple[str, str] = ("", "")) -> Pairs | None:
    """Files of two folders, and folders in them, by equal names without extension.

    Args:
        places: Folders that may have both.
        images: Folder of the images in one of them.
        seconds: Folder of what belongs to them.
        suffixes: Last part of the names in each folder, not counted as equal or not; files without it are left out.

    Raises:
        ValueError: if an image has no partner.
    """
    place = next((place for place in places if (place / images).is_dir() and (place / seconds).is_dir()), None)
    if place is None:
        return None
    first, second = (_stems(place / name, suffix) for name, suffix in zip((images, seconds), suffixes, strict=True))
    lonely = sorted(first.keys() ^ second.keys())
    if lonely:
        there, other = (images, seconds) if lonely[0] in first else (seconds, images)
        raise ValueError(
            f"{place}: {len(lonely)} files have no partner, such as {lonely[0]} of {there}, which {other} has not: "
            "expected equal names; unpack both folders whole, or remove what is over"
        )
    stems = sorted(first)
    return Pairs(*(Strings.of(files[stem] for stem in stems) for files in (first, second))) if stems else None


def size_of(pixels: Tensor) -> Size:
    """Width and height of (..., h, w)."""
    height, width = pixels.shape[-2:]
    return width, height


def check_sizes(size: Size, second: Size, image: Path, other: Path) -> None:
    """Check that what belongs to a picture has its size.

    Args:
        size: The picture's.
        second: Of what belongs to it.
        image: The picture's file.
        other: The other's.

    Raises:
        DamagedError: if it has not.
    """
    if size != second:
        raise DamagedError(
            image,
            f"{size[0]} x {size[1]} pixels, but {other} has {second[0]} x {second[1]}: expected one size, since both "
            "are cut alike; resize one of them (maps of classes by the nearest pixel)",
        )


def check_halves(size: Size, sheet: Path) -> None:
    """Check that a sheet has two halves of one size.

    Args:
        size: The sheet's.
        sheet: Its file.

    Raises:
        DamagedError: if its width is odd.
    """
    if size[0] % 2:
        raise DamagedError(
            sheet,
            f"{size[0]} pixels wide, expected two halves of equal width; make the sheet again from two pictures of "
            "one size",
        )


def _stems(folder: Path, suffix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for current, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if name[0] != ".")
        for name in sorted(names):
            stem, extension = os.path.splitext(name)
            if extension.lower() not in PICTURES or name[0] == "." or not stem.endswith(suffix):
                continue
            key = os.path.relpath(os.path.join(current, stem.removesuffix(suffix)), folder)
            if key in found:
                raise ValueError(f"{folder} has {found[key]} and {name}: expected names that differ without extension")
            found[key] = os.path.join(current, name)
    return found
