"""Pictures with captions: what every data set of them shares."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from mmdiffusion.data.base import Split
from mmdiffusion.data.captions import shorten
from mmdiffusion.data.crops import Crop
from mmdiffusion.data.files import DamagedError, FileDataModule, Files, Sample
from mmdiffusion.data.pixels import Pixels
from mmdiffusion.types import DataSpec, ImageSpec, NumberSpec, TextSpec

Part = Literal["train", "test"]
EvalCaptions = Literal["first", "all"]
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Pairs(ABC):
    """An index of pictures and their captions, small enough for memory and shared between workers."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of pictures."""

    @abstractmethod
    def picture(self, row: int) -> Pixels:
        """One picture, RGB of any size.

        Args:
            row: Its number.

        Raises:
            DamagedError: if it cannot be read.
        """

    @abstractmethod
    def captions(self, row: int) -> list[str]:
        """Its captions, mended, at least one.

        Args:
            row: Number of the picture.

        Raises:
            DamagedError: if they cannot be read, or there is none.
        """

    def num_captions(self) -> Int[Tensor, " n"]:
        """How many captions each picture has."""
        return torch.tensor([self._num_captions(row) for row in range(len(self))], dtype=torch.int64)

    def _num_captions(self, row: int) -> int:
        try:
            return len(self.captions(row))
        except DamagedError:
            return 1  # which is counted as damaged when it is read

    def labels(self, row: int) -> Sample:
        """What else is known of a picture, by the name of the modality.

        Args:
            row: Its number.
        """
        return {}


class PairFiles(Files):
    """Some pictures of an index, and one caption with each.

    Args:
        pairs: The index.
        rows: Which pictures.
        crop: How they become squares.
        captions: "drawn" anew at each draw, the "first", or "all", each with its picture as a sample of its own.
        max_words: Longest caption in words.
        max_bad_fraction: Share of samples that may be damaged, in [0, 1).
        seed: Seed of crops and of the choice of captions.
    """

    def __init__(
        self,
        pairs: Pairs,
        rows: Int[Tensor, " n"],
        crop: Crop,
        captions: Literal["drawn", "first", "all"],
        max_words: int,
        max_bad_fraction: float,
        seed: int,
    ) -> None:
        self.pairs, self.rows, self.crop = pairs, rows, crop
        self.choice, self.max_words = captions, max_words
        counts = pairs.num_captions()[rows] if captions == "all" else torch.ones_like(rows)
        self.ends = counts.cumsum(0)
        super().__init__(int(counts.sum()), max_bad_fraction, seed)

    @property
    def told(self) -> Collection[str]:
        """Caption, number of the picture, and what else the index knows; see `Files`."""
        return "caption", "picture", *self.pairs.labels(int(self.rows[0]))

    def _number(self, row: int) -> int:
        return int(torch.searchsorted(self.ends, row, right=True)) if self.choice == "all" else row

    def read(self, row: int, generator: torch.Generator) -> Sample:
        """A picture, its number among those of the split, and a caption; see `Files`."""
        told = self.tell(row, generator)
        return {"image": self.crop(self.pairs.picture(int(self.rows[self._number(row)])), generator)} | told

    def tell(self, row: int, generator: torch.Generator) -> Sample:
        """All but the picture; see `Files`."""
        number = self._number(row)
        picture = int(self.rows[number])
        captions = self.pairs.captions(picture)
        which = 0
        if self.choice == "all":
            which = row - int(self.ends[number]) + len(captions)
        elif self.choice == "drawn":
            which = int(torch.randint(len(captions), (), generator=generator))
        sample: Sample = {"caption": shorten(captions[which], self.max_words), "picture": number}
        return sample | self.pairs.labels(picture)


class PairDataModule(FileDataModule):
    """Pictures and captions, in a part for training and one for tests.

    A batch holds `image` (b 3 size size), `caption` (list of str), `picture` (b, number of the picture in its split,
    which captions of one picture share) and `index` (b).

    Args:
        size: Height and width of the pictures in pixels.
        num_val: Training pictures that are kept for validation, spread evenly; 0 validates on the test pictures.
        eval_captions: Captions of a picture in validation and test, its "first" or "all".
        max_words: Longest caption in words.
        options: Settings of `FileDataModule`.
    """

    has_test = True

    def __init__(
        self, size: int, num_val: int, eval_captions: EvalCaptions, max_words: int, **options: int | float
    ) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        for name, value, least in (("size", size, 1), ("num_val", num_val, 0), ("max_words", max_words, 1)):
            if value < least:
                raise ValueError(f"{name} is {value}: expected at least {least}")
        self.size, self.num_val, self.max_words = size, num_val, max_words
        self.eval_captions: EvalCaptions = eval_captions
        self._parts: dict[Part, Pairs] = {}

    @property
    def spec(self) -> DataSpec:
        """RGB pictures, and captions of any words."""
        return {
            "image": ImageSpec(channels=3, size=self.size),
            "caption": TextSpec(self.max_words),
            "picture": NumberSpec(),
        }

    @abstractmethod
    def pairs(self, part: Part) -> Pairs:
        """Index one part; called once for each."""

    def part(self, name: Part) -> Pairs:
        """The index of one part."""
        if name not in self._parts:
            self._parts[name] = self.pairs(name)
        return self._parts[name]

    def files(self, name: Split) -> Files:
        """One split; see `FileDataModule`."""
        part: Part = "train" if name == "train" or (name == "val" and self.num_val) or not self.has_test else "test"
        pairs = self.part(part)
        rows = torch.arange(len(pairs))
        if part == "train":
            is_kept = self._kept(len(pairs))
            rows = rows[~is_kept if name == "train" else is_kept]
        captions = "drawn" if name == "train" else self.eval_captions
        crop = Crop(self.size, random=name == "train")
        return PairFiles(pairs, rows, crop, captions, self.max_words, self.max_bad_fraction, self.seed)

    def _kept(self, size: int) -> Tensor:
        if self.num_val >= size:
            raise ValueError(f"num_val is {self.num_val}: expected less than {size}, the training pictures")
        is_kept = torch.zeros(size, dtype=torch.bool)
        is_kept[torch.arange(self.num_val) * size // max(1, self.num_val)] = True
        return is_kept

    def prepare_data(self) -> None:
        """Index all splits, so that what is missing is said before anything is written; see `DataModule`."""
        for name in _SPLITS:
            self.split(name)
        super().prepare_data()
