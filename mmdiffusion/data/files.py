"""Splits read from disk, sample by sample: what cannot be read is named, counted and replaced, up to a limit."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmdiffusion.data.base import DataModule, Split, only
from mmdiffusion.data.layout import some_of
from mmdiffusion.seeding import stream_seed
from mmdiffusion.types import Batch

Sample = dict[str, Tensor | str | int]


class DamagedError(Exception):
    """A file of a sample that cannot be read.

    Args:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: Path | str, reason: object) -> None:
        super().__init__(f"{path}: {reason}")


class Files(Dataset, ABC):
    """A split whose samples are files.

    A sample is asked for by the number of its draw, epoch * size + row, so that crops differ between epochs and are
    the same whatever the number of workers. A sample that is damaged is replaced by the next that is not.

    Args:
        size: Number of samples.
        max_bad_fraction: Share of samples that may be damaged before reading stops, in [0, 1). Each worker counts
            what it has seen.
        seed: Seed of random crops.
    """

    def __init__(self, size: int, max_bad_fraction: float, seed: int) -> None:
        if not 0 <= max_bad_fraction < 1:
            raise ValueError(f"max_bad_fraction is {max_bad_fraction}: expected a share in [0, 1)")
        self.size, self.max_bad_fraction, self.seed = size, max_bad_fraction, seed
        self.damaged: dict[int, str] = {}

    @abstractmethod
    def read(self, row: int, generator: torch.Generator) -> Sample:
        """One sample, without `index`; pixels are uint8, they become floats in [-1, 1] after collation.

        Args:
            row: Its number.
            generator: Source of crops, by the number of the draw.

        Raises:
            DamagedError: if one of its files cannot be read.
        """

    @property
    def told(self) -> Collection[str]:
        """Names of what the index tells of a sample, so that no picture or sound has to be read for it."""
        return ()

    def tell(self, row: int, generator: torch.Generator) -> Sample:
        """What the index tells of a sample: the same as `read` does.

        Args:
            row: Its number.
            generator: Source of what is drawn, by the number of the draw.

        Raises:
            DamagedError: if the index cannot be read there.
        """
        return {}

    def __len__(self) -> int:
        """Number of samples."""
        return self.size

    def _generator(self, draw: int) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed(self.seed, "crop", draw))

    def __getitem__(self, draw: int) -> Sample:
        """The sample of one draw, or the next that can be read."""
        generator = self._generator(draw)
        for row in range(draw % self.size, draw % self.size + self.size):
            if row % self.size in self.damaged:
                continue
            try:
                return {"index": row % self.size} | self.read(row % self.size, generator)
            except DamagedError as error:
                self._count(row % self.size, str(error))
        raise ValueError(f"all {self.size} samples of this split are damaged; {self._named()}")

    def __getitems__(self, draws: Sequence[int]) -> Batch:
        """A batch at once, which the loader takes as it is."""
        samples = [self[draw] for draw in draws]
        return {name: _column([sample[name] for sample in samples]) for name in samples[0]}

    def fetch(self, draws: Sequence[int], entries: Collection[str] | None) -> Batch:
        """Some entries of a batch, or all; files are read only where the index does not tell them.

        Args:
            draws: Numbers of draws.
            entries: What is wanted; `None` for all.
        """
        if entries is None or not set(entries) <= {*self.told, "index"}:
            return only(self.__getitems__(draws), entries)
        samples = [self._told(draw) for draw in draws]
        return {name: _column([sample[name] for sample in samples]) for name in entries}

    def _told(self, draw: int) -> Sample:
        row = draw % self.size
        try:
            return {"index": row} | self.tell(row, self._generator(draw))
        except DamagedError:
            return self[draw]

    def _count(self, row: int, problem: str) -> None:
        self.damaged[row] = problem
        if len(self.damaged) > self.max_bad_fraction * self.size:
            raise ValueError(
                f"{len(self.damaged)} of {self.size} samples are damaged, max_bad_fraction is "
                f"{self.max_bad_fraction}: expected fewer; mend or remove them, or raise the limit. {self._named()}"
            )

    def _named(self) -> str:
        return f"Damaged: {some_of(list(self.damaged.values()))}"


def _column(values: list[Any]) -> Tensor | list[str]:
    if isinstance(values[0], str):
        return values
    return torch.stack(values) if isinstance(values[0], Tensor) else torch.tensor(values)


def floats(batch: Batch) -> Batch:
    """Pixels as the methods take them: uint8 becomes float in [-1, 1], the rest stays.

    Args:
        batch: A batch as it was collated; a quarter of the bytes crossed from the workers.
    """
    return {name: _float(values) for name, values in batch.items()}


def _float(values: Tensor | list[str]) -> Tensor | list[str]:
    if isinstance(values, Tensor) and values.dtype == torch.uint8:
        return values.float().div_(127.5).sub_(1)
    return values


class FileDataModule(DataModule):
    """A data set on disk, in three splits.

    Args:
        batch_size: Samples per step and process, at least 1.
        eval_batch_size: Samples per batch in validation, test and prediction, at least 1.
        num_workers: Processes that read files, beside each training process; 0 reads in the training process.
        max_bad_fraction: Share of samples that may be damaged, in [0, 1).
        seed: Seed of the order of the training samples and of random crops.
    """

    def __init__(
        self, batch_size: int, eval_batch_size: int, num_workers: int, max_bad_fraction: float, seed: int
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        if num_workers < 0:
            raise ValueError(f"num_workers is {num_workers}: expected 0 or more")
        self.num_workers, self.max_bad_fraction = num_workers, max_bad_fraction
        self._splits: dict[str, Files] = {}

    @abstractmethod
    def files(self, name: Split) -> Files:
        """Index one split; called once for each."""

    def split(self, name: Split) -> Files:
        """One split of the data."""
        if name not in self._splits:
            self._splits[name] = self.files(name)
        return self._splits[name]

    def _fetch(self, split: Dataset, rows: Sequence[int], entries: Collection[str] | None) -> Batch:
        assert isinstance(split, Files)
        return floats(split.fetch(rows, entries))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Pixels become floats where the batch is needed, after it crossed processes and devices as bytes."""
        return floats(batch)

    def _loader(self, dataset: Dataset, batch_size: int, **options: object) -> DataLoader:
        workers = {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}
        return super()._loader(dataset, batch_size, **workers, **options)
