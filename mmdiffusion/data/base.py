"""What every data module shares: splits in memory, loaders, and the description of its modalities."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from mmdiffusion.resuming import position
from mmdiffusion.seeding import stream_seed
from mmdiffusion.types import Batch, DataSpec

Split = Literal["train", "val", "test"]


class Arrays(Dataset):
    """A split that fits in memory: tensors and lists of equal length, fetched a whole batch at a time.

    Args:
        columns: Modality name to values; `index` is added when missing.
    """

    def __init__(self, columns: Batch) -> None:
        sizes = {len(values) for values in columns.values()}
        assert len(sizes) == 1, f"columns of different lengths: {sizes}"
        (self.size,) = sizes
        self.columns = {"index": torch.arange(self.size)} | columns

    def __len__(self) -> int:
        """Number of samples."""
        return self.size

    def __getitem__(self, index: int) -> dict:
        """One sample."""
        return {name: values[index % self.size] for name, values in self.columns.items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch at once, which the loader takes as it is; indices count on through the epochs."""
        rows = torch.as_tensor(indices) % self.size
        return {
            name: values.index_select(0, rows) if isinstance(values, Tensor) else [values[row] for row in rows.tolist()]
            for name, values in self.columns.items()
        }


class Order(DistributedSampler):
    """Shuffled rows of a training split, by (seed, epoch); numbered on through the epochs: epoch * size + row."""

    _begun: tuple[int, int] = (0, 0)

    def go_on(self, epoch: int, seen: int) -> None:
        """Begin where a training stopped.

        Args:
            epoch: Its epoch.
            seen: Rows of this epoch that this process has had; later epochs are whole.
        """
        self._begun = (epoch, seen)
        self.set_epoch(epoch)  # now: worker processes fetch before the trainer sets it

    def __iter__(self) -> Iterator[int]:
        """Numbers of the draws of this process in this epoch."""
        first = self.epoch * len(self.dataset)  # pyright: ignore[reportArgumentType]
        epoch, seen = self._begun
        return (first + row for row in islice(super().__iter__(), seen if epoch == self.epoch else 0, None))


class Resumable(DataLoader):
    """A loader of an `Order`, which goes on where a training stopped: nothing is left to be remembered here."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the data module keeps the place."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing; Lightning takes a loader without this for one that starts the epoch again."""


class DataModule(LightningDataModule, ABC):
    """A data set in three splits.

    Args:
        batch_size: Samples per step and process, at least 1.
        eval_batch_size: Samples per batch in validation, test and prediction, at least 1.
        seed: Seed of the order of the training samples.
    """

    def __init__(self, batch_size: int, eval_batch_size: int, seed: int) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}: expected at least 1")
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self._begun = (0, 0)

    @property
    @abstractmethod
    def spec(self) -> DataSpec:
        """The modalities of a batch."""

    @abstractmethod
    def split(self, name: Split) -> Dataset:
        """One split of the data."""

    @property
    def source(self) -> "DataModule":
        """The data set itself, where batches come from a cache of it."""
        return self

    def columns(self, name: Split) -> Batch:
        """All values of a split that fits in memory, by modality.

        Raises:
            ValueError: if the split is read from disk sample by sample.
        """
        split = self.split(name)
        if not isinstance(split, Arrays):
            raise ValueError(f"{type(self).__name__}: the {name} split is not in memory, expected Arrays")
        return split.columns

    def rows(self, name: Split, indices: Sequence[int], entries: Collection[str] | None = None) -> Batch:
        """Some samples of a split, fetched at once.

        Args:
            name: The split.
            indices: Rows; counted on from the start again when they exceed the split.
            entries: What is wanted of them, or `None` for all; captions alone may be had without their pictures.
        """
        split = self.split(name)
        size = len(split)  # pyright: ignore[reportArgumentType]
        return self._fetch(split, [index % size for index in indices], entries)

    def _fetch(self, split: Dataset, rows: Sequence[int], entries: Collection[str] | None) -> Batch:
        return only(split.__getitems__(rows), entries)  # pyright: ignore[reportAttributeAccessIssue]

    def num_rows(self, name: Split) -> int:
        """Samples of a split."""
        return len(self.split(name))  # pyright: ignore[reportArgumentType]

    def smallest_batch(self) -> int:
        """Fewest samples of a process's batch in training and validation, where the last batch may be smaller."""
        rows = math.ceil(self.num_rows("val") / self._num_processes)
        return min(self.batch_size, rows % self.eval_batch_size or self.eval_batch_size)

    def prepare_data(self) -> None:
        """Check that a training has a batch; Lightning calls this before anything is written.

        Raises:
            ValueError: if the training split does not fill one batch.
        """
        size = self.num_rows("train") // self._num_processes
        if self.batch_size > size:
            raise ValueError(f"batch_size is {self.batch_size}: expected at most {size}, a process's training samples")

    def train_dataloader(self) -> DataLoader:
        """Shuffled training batches, by (seed, epoch); the last, smaller one of an epoch is dropped."""
        dataset, rank = self.split("train"), self.trainer.global_rank if self.trainer else 0
        order = Order(
            dataset,
            self._num_processes,
            rank,
            seed=stream_seed(self.seed, "order", 0),
            drop_last=True,
        )
        epoch, batches = self._begun
        order.go_on(epoch, batches * self.batch_size)
        return self._loader(dataset, self.batch_size, sampler=order, drop_last=True)

    def state_dict(self) -> dict[str, Any]:
        """Where the training data are read, and what that place is counted in; nothing outside of a training."""
        if self.trainer is None:
            return {}
        where = position(self.trainer)
        counted = {"batch_size": self.batch_size, "processes": self._num_processes}
        return {"epoch": where.epoch, "batches": where.batches} | counted

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on reading where a training stopped; tests and predictions read from the start.

        Args:
            state_dict: What `state_dict` returned.

        Raises:
            ValueError: if batches or processes are others now: noise and order depend on them.
        """
        if self.trainer is not None and self.trainer.state.fn != TrainerFn.FITTING:
            return
        now = {"batch_size": self.batch_size, "processes": self._num_processes}
        for name, value in now.items():
            if state_dict[name] != value:
                raise ValueError(
                    f"{name} is {value}: expected {state_dict[name]}, as before this training was stopped; its noise "
                    "and the order of its data depend on it. For another, start a new run with the callback StartFrom"
                )
        self._begun = (state_dict["epoch"], state_dict["batches"])

    @property
    def _num_processes(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def val_dataloader(self) -> DataLoader:
        """The validation split in order."""
        return self._loader(self.split("val"), self.eval_batch_size)

    def test_dataloader(self) -> DataLoader:
        """The test split in order."""
        return self._loader(self.split("test"), self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader:
        """The test split in order: its conditions are what samples are drawn for."""
        return self.test_dataloader()

    def _loader(self, dataset: Dataset, batch_size: int, **options: object) -> DataLoader:
        kind = Resumable if isinstance(options.get("sampler"), Order) else DataLoader
        # by name: Lightning takes the arguments apart and adds its own
        return kind(dataset, batch_size=batch_size, collate_fn=whole_batch, **options)  # pyright: ignore


def only(batch: Batch, entries: Collection[str] | None) -> Batch:
    """These entries of a batch, or all.

    Raises:
        ValueError: naming an entry that it does not have.
    """
    missing = [name for name in entries or () if name not in batch]
    if missing:
        raise ValueError(f"the data have {', '.join(batch)}: expected {' and '.join(missing)} as well, asked for")
    return batch if entries is None else {name: batch[name] for name in entries}


def whole_batch(batch: Batch) -> Batch:
    """A batch that `__getitems__` fetched at once needs no collating."""
    return batch
