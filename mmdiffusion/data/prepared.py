"""A data set whose splits come from a cache of `mmdiffusion prepare`."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from mmdiffusion.codecs.encoder import Encoder
from mmdiffusion.data.base import DataModule, Split, only
from mmdiffusion.data.encoding import PROBE
from mmdiffusion.data.probe import check_probe, probe
from mmdiffusion.data.recipe import Cache, Recipe, described
from mmdiffusion.data.shard_folder import check_plan, damaged, read_manifest
from mmdiffusion.data.shards import Rows
from mmdiffusion.types import Batch, DataSpec

SPLITS: tuple[Split, ...] = get_args(Split)
_READ: dict[str | None, tuple[Split, ...]] = {
    TrainerFn.FITTING: ("train", "val"),
    TrainerFn.VALIDATING: ("val",),
    TrainerFn.TESTING: ("test",),
    TrainerFn.PREDICTING: ("test",),
}


class StoredSplit(Dataset):
    """A split as it was stored. Draws count on through the epochs and come round after the last view.

    Args:
        path: Its folder, complete.
        size: Samples.
    """

    def __init__(self, path: Path, size: int) -> None:
        manifest = read_manifest(path)
        self.path, self.size, self.entries = path, size, manifest["shards"]
        self.num_stored = size * manifest["plan"]["views"]
        self.stored = Rows([path / entry["file"] for entry in self.entries], manifest["plan"]["shard_rows"])

    def __len__(self) -> int:
        """Number of samples."""
        return self.size

    def __getitem__(self, draw: int) -> dict[str, Any]:
        """The sample of one draw."""
        return {name: values[0] for name, values in self.__getitems__([draw]).items()}

    def __getitems__(self, draws: Sequence[int]) -> Batch:
        """A batch at once, which the loader takes as it is."""
        return self.stored.take(torch.as_tensor(draws) % self.num_stored)

    def check(self) -> None:
        """Check all files against their sizes and SHA-256.

        Raises:
            ValueError: naming the first that is damaged.
        """
        for _, problem in damaged(self.path, self.entries):
            raise ValueError(f"{problem}; run `mmdiffusion prepare` again, which writes it anew and nothing else")


class Prepared(DataModule):
    """A data set whose batches come from a cache: encoded entries beside, or instead of, what they were made from.

    What is measured, drawn for or compared with (`rows`, `columns`) comes from the data themselves, as without a cache.

    Args:
        data: The data set that the cache was made from.
        cache: Where the cache is.
        encoders: Frozen networks of the method that reads the batches.
        needed: Entries that the method reads beside what these make of them.

    Raises:
        ValueError: if the cache is incomplete, or was made from other data or with other networks.
    """

    def __init__(
        self, data: DataModule, cache: Cache, encoders: Sequence[Encoder] = (), needed: Sequence[str] = ()
    ) -> None:
        super().__init__(data.batch_size, data.eval_batch_size, data.seed)
        assert cache.folder is not None
        self.data, self.features, self._spec = data, list(cache.features), cache.describe(data.spec)
        recipe = cache.recipe(encoders, needed)
        self._splits = {name: _open(Path(cache.folder) / name, data, name, recipe) for name in SPLITS}
        sizes = ", ".join(f"{name} {split.num_stored}" for name, split in self._splits.items())
        made = ", ".join(f"{part.reads} as {type(part).__name__} encodes it" for part in recipe.encoders)
        rank_zero_info(f"batches come from {cache.folder}: {'; '.join([sizes, *self.features, *filter(None, [made])])}")

    @property
    def source(self) -> DataModule:
        """The data set itself."""
        return self.data

    @property
    def spec(self) -> DataSpec:
        """The modalities of the data, and features."""
        return self._spec

    def split(self, name: Split) -> StoredSplit:
        """One split, as it is stored."""
        return self._splits[name]

    def columns(self, name: Split) -> Batch:
        """All values of a split that fits in memory, and its features; see `DataModule`."""
        return self.data.columns(name) | self._features(name, range(self.num_rows(name)))

    def rows(self, name: Split, indices: Sequence[int], entries: Collection[str] | None = None) -> Batch:
        """Some samples of a split as the data hand them out, and their features; see `DataModule`."""
        own = None if entries is None else [entry for entry in entries if entry not in self.features]
        features = self._features(name, indices) if own is None or own != list(entries or ()) else {}
        return only(self.data.rows(name, indices, own) | features, entries)

    def _features(self, split: Split, indices: Sequence[int]) -> Batch:
        if not self.features:
            return {}
        size = self.num_rows(split)
        stored = self._splits[split].__getitems__([index % size for index in indices])
        return {name: stored[name] for name in self.features}

    # Lightning -------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Check that a training has a batch, and the files that are about to be read; once a node.

        Raises:
            ValueError: if the training split does not fill one batch, or a file is damaged.
        """
        super().prepare_data()
        start = time.perf_counter()
        splits = [self._splits[name] for name in _READ[self.trainer.state.fn if self.trainer else TrainerFn.FITTING]]
        for split in splits:
            split.check()
        size = sum(entry["bytes"] for split in splits for entry in split.entries)
        rank_zero_info(f"cache checked: {size / 1e6:.0f} MB in {time.perf_counter() - start:.1f} s")

    def setup(self, stage: str) -> None:
        """Let the data know of the trainer."""
        self.data.trainer = self.trainer
        self.data.setup(stage)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """What the data do, such as bytes to floats."""
        return self.data.on_after_batch_transfer(batch, dataloader_idx)

    def _loader(self, dataset: Dataset, batch_size: int, **options: object) -> DataLoader:
        return self.data._loader(dataset, batch_size, **options)


def _open(path: Path, data: DataModule, split: Split, recipe: Recipe) -> StoredSplit:
    """A stored split, if it is complete and was made like this from these data."""
    manifest = read_manifest(path)
    found, about = manifest["plan"], described(data, split)
    ours = {"data": about} | recipe.plan
    check_plan(path, ours | {name: value for name, value in found.items() if name not in ours}, found)
    if manifest["shards"] is None:
        raise ValueError(f"{path} is incomplete: run `mmdiffusion prepare` again, it goes on where it was interrupted")
    check_probe(path / PROBE, probe(data, split, about["drawn at random"]))
    return StoredSplit(path, data.num_rows(split))
