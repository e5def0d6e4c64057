"""Filling a cache: a split, read once, encoded, and stored shard by shard."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mmdiffusion.data.base import DataModule, Split, whole_batch
from mmdiffusion.data.probe import check_probe, probe, write_probe
from mmdiffusion.data.recipe import Cache, Recipe, described
from mmdiffusion.data.shard_folder import ShardFolder
from mmdiffusion.types import Batch

PROBE = "probe.safetensors"
"""A few rows of the data, beside the shards."""


class Processes(NamedTuple):
    """Who does the work.

    Attributes:
        rank: Number of this process.
        world_size: Number of processes; each takes every `world_size`-th shard.
        device: Where this one's networks are.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")

    def share(self, num_shards: int) -> range:
        """Shards of this process."""
        return range(self.rank, num_shards, self.world_size)


def shares(data: DataModule, split: Split, cache: Cache, processes: Processes) -> dict[int, range]:
    """Draws of each shard of this process; those of a split are epoch * size + row, one epoch after another."""
    size, rows = num_stored(data, split, cache), cache.shard_rows
    return {n: range(n * rows, min((n + 1) * rows, size)) for n in processes.share(math.ceil(size / rows))}


def num_stored(data: DataModule, split: Split, cache: Cache) -> int:
    """Rows that a cache has of a split."""
    return data.num_rows(split) * (cache.views if split == "train" else 1)


@torch.no_grad()
def encode_split(
    data: DataModule,
    split: Split,
    cache: Cache,
    recipe: Recipe,
    processes: Processes,
    advance: Callable[[int], None],
) -> bool:
    """Encode what is missing of this process's share.

    Batches start anew in each shard, so that its bytes depend on neither the number of processes nor what was there
    before.

    Args:
        data: The data.
        split: The split.
        cache: Where it goes, and in which pieces.
        recipe: What is stored of a batch.
        processes: Who does the work.
        advance: Is told how many rows are done.

    Returns:
        Whether the split is complete, with the shares of all processes.

    Raises:
        ValueError: if the folder was begun otherwise, or `views` does not suit the data.
    """
    shards, draws = begin(data, split, cache, recipe), shares(data, split, cache, processes)
    missing = shards.missing(draws)
    advance(sum(len(own) for number, own in draws.items() if number not in missing))
    for part in (*recipe.encoders, *recipe.features.values()):
        part.to(processes.device)
    batches = {number: pieces(draws[number], data.eval_batch_size) for number in missing}
    stream = read(data, split, [piece for number in missing for piece in batches[number]], processes.device)
    for number in missing:
        parts = list[Batch]()
        for _ in batches[number]:
            parts.append(recipe.columns(*next(stream)))
            advance(len(parts[-1]["index"]))
        shards.write(number, _joined(parts))
    return shards.finish()


def begin(data: DataModule, split: Split, cache: Cache, recipe: Recipe) -> ShardFolder:
    """The folder of a split, begun or to be gone on with; see `encode_split`."""
    assert cache.folder is not None
    about, size = described(data, split), num_stored(data, split, cache)
    check_views(cache.views, split, about["drawn at random"])
    plan = {"data": about} | recipe.plan | {"views": size // data.num_rows(split), "shard_rows": cache.shard_rows}
    shards = ShardFolder(Path(cache.folder) / split, plan, math.ceil(size / cache.shard_rows))
    shards.begin()
    rows, known = probe(data, split, about["drawn at random"]), shards.path / PROBE
    if known.exists():
        check_probe(known, rows)  # before shards of other data are added, or taken for those of these
    else:
        write_probe(known, rows)
    return shards


def check_views(views: int, split: Split, random: Sequence[str]) -> None:
    """Check that what is stored of training samples is what a training would see of them.

    Args:
        views: Draws that are stored of each.
        split: The split.
        random: Entries that differ between epochs.

    Raises:
        ValueError: if entries are random and one draw would be frozen, or nothing is random and draws would repeat.
    """
    if split != "train":
        return
    if random and views == 1:
        raise ValueError(
            f"cache.views is 1, and the training split draws {' and '.join(random)} at random: a cache holds fixed "
            "draws. Expected settings of the data without random crops, flips or captions (a central crop), or "
            "cache.views of 2 or more, the draws stored of each sample"
        )
    if views > 1 and not random:
        raise ValueError(f"cache.views is {views}: expected 1, the training split draws nothing at random")


def pieces(rows: range, size: int) -> list[range]:
    """Rows in batches, the last of which may be smaller."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def read(
    data: DataModule, split: Split, batches: Iterable[Sequence[int]], device: torch.device
) -> Iterator[tuple[Batch, Batch]]:
    """Batches of draws, twice: as the split hands them out, and as methods take them, on a device.

    Args:
        data: The data; its own worker processes read.
        split: The split.
        batches: Draws of each batch.
        device: Where the second is wanted.
    """
    workers = getattr(data, "num_workers", 0)  # data in memory have none
    sampler = [list(batch) for batch in batches]
    collate: Any = whole_batch
    for batch in DataLoader(data.split(split), batch_sampler=sampler, collate_fn=collate, num_workers=workers):
        moved = {name: values.to(device) if isinstance(values, Tensor) else values for name, values in batch.items()}
        yield batch, data.on_after_batch_transfer(moved, 0)


def _joined(parts: Sequence[Batch]) -> Batch:
    columns: Batch = {}
    for name, first in parts[0].items():
        values: list[Any] = [part[name] for part in parts]
        columns[name] = torch.cat(values) if isinstance(first, Tensor) else [text for value in values for text in value]
    return columns
