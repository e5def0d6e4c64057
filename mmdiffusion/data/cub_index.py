"""What of CUB-200-2011 is on disk, and where."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from mmdiffusion.data.captions import Captions, as_text, lines
from mmdiffusion.data.files import DamagedError, Sample
from mmdiffusion.data.layout import check_share, existing_folder, first_folder, unfold
from mmdiffusion.data.pairs import Pairs, Part
from mmdiffusion.data.pixels import Pixels, read_pixels
from mmdiffusion.data.strings import Collector, Strings
from mmdiffusion.data.unpickle import load_pickle

Division = Literal["species", "official"]
NUM_CLASSES = 200
PUBLISHED: dict[Division, dict[str, int]] = {
    "species": {"training pictures": 8855, "test pictures": 2933},
    "official": {"training pictures": 5994, "test pictures": 5794},
}
_PICTURES = "CUB_200_2011.tgz, from https://www.vision.caltech.edu/datasets/cub_200_2011"
_TEXTS = "AttnGAN's metadata of birds, linked from https://github.com/taoxugit/AttnGAN"
_BOX_SHARE = 0.75
"""Half of the side of a square around a bird, in units of the larger side of its box (AttnGAN, released code)."""
Value = TypeVar("Value")


class Places:
    """Where the files of CUB are.

    Args:
        root: Folder that the user names.

    Raises:
        ValueError: naming what is missing, and where it is offered.
    """

    def __init__(self, root: str) -> None:
        self.root = existing_folder(root, f"CUB_200_2011 and text; {_PICTURES}; {_TEXTS}")
        self.home = unfold(self.root, "CUB_200_2011") or self.root
        images = unfold(self.home, "images")
        texts = first_folder((self.root, self.home), ("text", "text_c10"))
        if images is None:
            raise ValueError(f"{self.home / 'images'} is missing: expected the pictures of CUB, {_PICTURES}")
        if texts is None:
            raise ValueError(f"{self.root / 'text'} is missing: expected the captions of CUB, {_TEXTS}")
        self.images, self.texts = images, texts

    def names(self, division: Division, part: Part) -> list[str]:
        """Pictures of one part as "<class>/<name>", without extension.

        Raises:
            ValueError: if their list is missing or damaged.
        """
        if division == "official":
            number = int(part == "train")
            known = self._table("train_test_split.txt", lambda words: int(words[0]))
            return [name for image, name in self._pictures().items() if known.get(image) == number]
        folders = [folder for place in (self.root, self.home) if (folder := unfold(place, part)) is not None]
        path = next((folder / "filenames.pickle" for folder in folders), self.root / part / "filenames.pickle")
        if not path.is_file():
            raise ValueError(
                f"{path} is missing: expected the list of {part} pictures, {_TEXTS}; or set division to official"
            )
        names = load_pickle(path)
        if not isinstance(names, list) or not all(isinstance(name, str) and is_plain(name) for name in names):
            raise ValueError(f"{path} is no list of names: expected texts such as 001.Black_footed_Albatross/name")
        return names

    def classes(self) -> tuple[str, ...]:
        """Names of the species; none without `classes.txt`."""
        if not (self.home / "classes.txt").is_file():
            return ()
        folders = self._table("classes.txt", lambda words: words[0])
        return tuple(folder.split(".", 1)[-1].replace("_", " ") for folder in folders.values())

    def boxes(self) -> dict[str, tuple[float, ...]]:
        """Left, top, width and height of each bird, by the name of its picture."""
        boxes = self._table("bounding_boxes.txt", lambda words: tuple(float(word) for word in words[:4]))
        return {name: boxes[image] for image, name in self._pictures().items() if image in boxes}

    def _pictures(self) -> dict[int, str]:
        names = self._table("images.txt", lambda words: words[0].rsplit(".", 1)[0])
        if not all(map(is_plain, names.values())):
            raise ValueError(f"{self.home / 'images.txt'} names files elsewhere: expected <class>/<name>.jpg")
        return names

    def _table(self, name: str, read: Callable[[list[str]], Value]) -> dict[int, Value]:
        """Lines of "<id> <words>"; the ids of a subset have gaps."""
        path = self.home / name
        if not path.is_file():
            raise ValueError(f"{path} is missing: expected a list of CUB, in {_PICTURES}")
        try:
            rows = [line.split() for line in as_text(path.read_bytes()).splitlines() if line.strip()]
            return {int(words[0]): read(words[1:]) for words in rows}
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path} is damaged: expected lines of a number and more; {error}") from error


def is_plain(name: str) -> bool:
    """Whether a name is "<number>.<class>/<name>", of one of the 200 species, and leads nowhere else."""
    parts = name.split("/")
    if len(parts) != 2 or {"", ".", ".."} & set(parts):
        return False
    return parts[0][:3].isdecimal() and 1 <= int(parts[0][:3]) <= NUM_CLASSES


class Birds(Pairs):
    """Pictures of birds, and their captions in memory.

    Args:
        places: Where the files are.
        names: Pictures, as "<class>/<name>".
        boxes: Boxes of the birds, by name; `None` shows whole pictures.
        max_bad_fraction: Share of pictures that may lack something.
    """

    def __init__(
        self,
        places: Places,
        names: list[str],
        boxes: dict[str, tuple[float, ...]] | None,
        max_bad_fraction: float,
    ) -> None:
        self.images = places.images
        present = Present(places)
        used, problems, texts, owners = list[str](), list[str](), Collector(), list[int]()
        for name in names:
            found = present.captions(name)
            if boxes is not None and name not in boxes:
                found = "no line in bounding_boxes.txt"
            if isinstance(found, str):
                problems.append(f"{name}: {found}")
                continue
            for caption in found:
                texts.append(caption)
            owners += [len(used)] * len(found)
            used.append(name)
        remedy = f"get them anew ({_PICTURES}; {_TEXTS})"
        check_share(problems, len(names), max_bad_fraction, remedy)
        self.names = Strings.of(used)
        self.texts = Captions(texts.strings(), torch.tensor(owners, dtype=torch.int64), len(used))
        self.boxes = None if boxes is None else torch.tensor([boxes[name] for name in used])

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.names)

    def picture(self, row: int) -> Pixels:
        """A bird; see `Pairs`."""
        path = self.images / f"{self.names[row]}.jpg"
        pixels = read_pixels(path)
        if self.boxes is None:
            return pixels
        part = around(pixels, self.boxes[row].tolist())
        if part.numel() == 0:
            raise DamagedError(path, f"its box in bounding_boxes.txt, {self.boxes[row].tolist()}, is outside of it")
        return part

    def captions(self, row: int) -> list[str]:
        """Its captions, usually ten; see `Pairs`."""
        return self.texts.of(row)

    def num_captions(self) -> Int[Tensor, " n"]:
        """How many captions each picture has."""
        return self.texts.counts

    def labels(self, row: int) -> Sample:
        """Its species: the number in front of the folder's name, from 0."""
        return {"label": int(self.names[row][:3]) - 1}


class Present:
    """Which files are there, by one look into each folder.

    Args:
        places: Where the files are.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.known: dict[Path, set[str]] = {}

    def captions(self, name: str) -> list[str] | str:
        """Captions of a picture that is there, or what is wrong with it.

        Args:
            name: "<class>/<name>".
        """
        if not self._has(self.places.images, f"{name}.jpg"):
            return f"no {self.places.images / name}.jpg"
        if not self._has(self.places.texts, f"{name}.txt"):
            return f"no {self.places.texts / name}.txt"
        path = self.places.texts / f"{name}.txt"
        try:
            return list(lines(as_text(path.read_bytes()))) or f"{path} has no caption"
        except (OSError, ValueError) as error:
            return f"{path}: {error}"

    def _has(self, place: Path, name: str) -> bool:
        folder, file = (place / name).parent, name.split("/")[1]
        if folder not in self.known:
            self.known[folder] = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return file in self.known[folder]


def around(pixels: Pixels, box: list[float]) -> UInt8[Tensor, "c rows columns"]:
    """The part of a picture around a bird: a square half as large again as its box, as far as the picture goes.

    As StackGAN and AttnGAN cut (released code), in whole pixels.

    Args:
        pixels: (c, h, w).
        box: Left, top, width and height in pixels.
    """
    left, top, width, height = (int(number) for number in box)
    reach = int(max(width, height) * _BOX_SHARE)
    across, down = (2 * left + width) // 2, (2 * top + height) // 2
    return pixels[:, max(0, down - reach) : down + reach, max(0, across - reach) : across + reach]
