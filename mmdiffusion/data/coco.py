"""MS-COCO: photographs, and about five captions of each."""

import json
import os
from array import array
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from mmdiffusion.data.captions import Captions, mend
from mmdiffusion.data.layout import check_share, existing_folder, first_folder, say_counts
from mmdiffusion.data.pairs import EvalCaptions, PairDataModule, Pairs, Part
from mmdiffusion.data.pixels import Pixels, read_pixels
from mmdiffusion.data.strings import Collector, tensor_of

Year = Literal[2014, 2017]
PUBLISHED: dict[Year, dict[Part, dict[str, int]]] = {
    2014: {"train": {"training pictures": 82_783}, "test": {"validation pictures": 40_504}},
    2017: {"train": {"training pictures": 118_287}, "test": {"validation pictures": 5000}},
}
_SITE = "https://cocodataset.org/#download"
_FOLDERS: dict[Part, str] = {"train": "train", "test": "val"}


class COCO(PairDataModule):
    """MS-COCO captions (Lin et al. 2014, Chen et al. 2015), of 2014 or 2017.

    `root` holds `annotations/captions_train2017.json` and `captions_val2017.json`, and the pictures in `train2017` and
    `val2017`, there or in `images`; folders that hold themselves, such as `train2014/train2014`, are looked through.
    Tests use the publisher's validation pictures, whose test pictures have no captions. A batch holds `image` (b 3 size
    size, in [-1, 1]), `caption` (list of str), `picture` (b, number of the picture in its split) and `index` (b).

    Training draws one of a picture's captions at each step, and a random crop from its middle. Nothing is mirrored:
    captions say left and right.

    Args:
        root: Folder with annotations and pictures.
        size: Height and width of the pictures in pixels.
        year: 2017 (118,287 and 5,000 pictures), or 2014 (82,783 and 40,504), which the papers use.
        num_val: Training pictures that are kept for validation, spread evenly; 0 validates on the test pictures.
        eval_captions: Captions of a picture in validation and test: its `first`, or `all`, each as one sample.
        max_words: Longest caption in words; a longer one loses its end.
        batch_size: Samples per step and process, at least 1.
        eval_batch_size: Samples per batch in validation, test and prediction, at least 1.
        num_workers: Processes that read files, beside each training process; 0 reads in the training process.
        max_bad_fraction: Share of samples that may be damaged or missing, in [0, 1).
        seed: Seed of the order of the training samples, of crops and of the choice of captions.
    """

    def __init__(
        self,
        root: str,
        size: int = 256,
        year: Year = 2017,
        num_val: int = 0,
        eval_captions: EvalCaptions = "first",
        max_words: int = 64,
        batch_size: int = 64,
        eval_batch_size: int = 100,
        num_workers: int = 2,
        max_bad_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            size,
            num_val,
            eval_captions,
            max_words,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            max_bad_fraction=max_bad_fraction,
            seed=seed,
        )
        self.root, self.year = root, year
        self.places = {part: find_part(root, f"{_FOLDERS[part]}{year}", year) for part in ("train", "test")}

    def pairs(self, part: Part) -> Pairs:
        """Pictures and captions of one part; see `PairDataModule`."""
        photographs = Photographs(*self.places[part], self.max_bad_fraction)
        published = PUBLISHED[self.year][part]
        say_counts(f"COCO at {self.root}", dict.fromkeys(published, len(photographs)), published)
        return photographs


def find_part(root: str, name: str, year: Year) -> tuple[Path, Path]:
    """Pictures and captions of one part.

    Args:
        root: Folder that the user names.
        name: The publisher's name of the part, such as train2017.
        year: Its year.

    Returns:
        The folder of pictures, and the file of captions.

    Raises:
        ValueError: naming what is missing, and where it is offered.
    """
    folder = existing_folder(root, f"annotations and {name}")
    pictures = first_folder((folder, folder / "images"), (name,))
    inner = folder / f"annotations_trainval{year}"
    annotations = first_folder((folder, inner), ("annotations",)) or folder / "annotations"
    captions = annotations / f"captions_{name}.json"
    if pictures is None:
        raise ValueError(f"{folder / name} is missing: expected the pictures of {name}.zip, from {_SITE}")
    if not captions.is_file():
        raise ValueError(
            f"{captions} is missing: expected the captions of {name}, in annotations_trainval{year}.zip from {_SITE}"
        )
    return pictures, captions


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
        remedy = f"get what is missing ({_SITE})"
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
            raise ValueError(f"{path} is damaged: {error}; get it anew, from {_SITE}") from error
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
            raise ValueError(f"{self.path} has {found}: get it anew, from {_SITE}")
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
