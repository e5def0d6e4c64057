"""What of MS-COCO's captions is on disk."""

import json
import os
from array import array
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from mmdiffusion.data.captions import Captions, mend
from mmdiffusion.data.layout import check_share
from mmdiffusion.data.pairs import Pairs
from mmdiffusion.data.pixels import Pixels, read_pixels
from mmdiffusion.data.strings import Collector, tensor_of

SITE = "https://cocodataset.org/#download"


class Photographs(Pairs):
    """Photographs of one file of annotations that are there, and their captions in memory.

    Args:
        pictures: Folder of the pictures.
        annotations: File of the captions.
        max_bad_fraction: Share of pictures that may be missing or have no caption.
    """

    def __init__(self, pictures: Path, annotations: Path, max_bad_fraction: float) -> None:
        records, self.folder = Records(annotations), pictures
        names, rows = records.names.strings(), records.rows()
        counts = torch.bincount(rows, minlength=len(names))
        present = set(os.listdir(pictures))
        used, problems, number = Collector(), list[str](), torch.full((len(names),), -1)
        for row, name in enumerate(names):
            if name not in present:
                problems.append(f"no {pictures / name}")
            elif counts[row] == 0:
                problems.append(f"{name} has no caption in {annotations.name}")
            else:
                number[row] = len(used)
                used.append(name)
        remedy = f"get what is missing ({SITE})"
        check_share(problems, len(names), max_bad_fraction, remedy)
        self.names = used.strings()
        self.texts = Captions(records.captions.strings(), number[rows], len(used))

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.names)

    def picture(self, row: int) -> Pixels:
        """A photograph; see `Pairs`."""
        return read_pixels(self.folder / self.names[row])

    def captions(self, row: int) -> list[str]:
        """Its captions, five to seven; see `Pairs`."""
        return self.texts.of(row)

    def num_captions(self) -> Int[Tensor, " n"]:
        """How many captions each picture has."""
        return self.texts.counts


class Records:
    """Names and captions of a file of annotations, taken from it while it is parsed: it is never whole in memory.

    Args:
        path: The file.

    Raises:
        ValueError: if it is damaged, or none of captions.
    """

    def __init__(self, path: Path) -> None:
        self.names, self.images = Collector(), array("q")
        self.captions, self.owners = Collector(), array("q")
        self.path, self.num_empty = path, 0
        try:
            with path.open(encoding="utf-8") as file:
                json.load(file, object_hook=self._take)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: {error}; get it anew, from {SITE}") from error
        if not len(self.names) or not len(self.captions):
            found = f"{len(self.names)} images and {len(self.captions)} captions"
            raise ValueError(
                f"{path} has {found}: expected `images` with `file_name`, and `annotations` with `caption`"
            )
        if self.num_empty:
            rank_zero_info(f"{path}: {self.num_empty} captions are empty and left out")

    def rows(self) -> Int[Tensor, " n"]:
        """Place among the images of what each caption is about.

        Raises:
            ValueError: if a caption is about an image that is not listed.
        """
        images, owners = (tensor_of(numbers, torch.int64) for numbers in (self.images, self.owners))
        by_number, order = images.sort()
        place = torch.searchsorted(by_number, owners).clamp(max=len(images) - 1)
        strangers = owners[by_number[place] != owners]
        if len(strangers):
            found = f"{len(strangers)} captions of images that it does not list, such as {int(strangers[0])}"
            raise ValueError(f"{self.path} has {found}: get it anew, from {SITE}")
        return order[place]

    def _take(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Keep what is wanted of one object of the file, and nothing in its place."""
        try:
            if "caption" in record:
                self._take_caption(record["caption"], record["image_id"])
            elif "file_name" in record:
                self._take_image(record["file_name"], record["id"])
            else:
                return record
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{str(record)[:200]} is no record of an image or a caption ({error!r})") from error
        return None

    def _take_caption(self, caption: str, image: int) -> None:
        words = mend(caption)
        if not words:
            self.num_empty += 1
            return
        self.owners.append(image)
        self.captions.append(words)

    def _take_image(self, name: str, image: int) -> None:
        if Path(name).name != name or name in {"..", "."}:
            raise ValueError(f"file_name is {name!r}: expected the name of a file")
        self.images.append(image)
        self.names.append(name)
