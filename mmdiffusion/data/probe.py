"""A few rows of a split, by which it is known again: of the same files, read in the same way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmdiffusion.data.base import DataModule, Split
from mmdiffusion.data.shards import Shard, pack, write_whole
from mmdiffusion.types import Batch

_NUM_EPOCHS, _NUM_ROWS = 3, 8
"""Draws that are compared to find what is random: a flip of half of the rows is missed once in 2**16."""
_LEVELS, _SHARE = 2.0, 0.02
"""Largest mean difference of pixels in bytes, and of other numbers as a share of their size: decoders round alike
on no two machines, and another crop differs by far more."""


def probe(data: DataModule, split: Split, leave_out: Sequence[str] = ()) -> Batch:
    """A few rows from all over a split, as it hands them out.

    Args:
        data: The data module.
        split: The split.
        leave_out: Entries that are random.
    """
    size = data.num_rows(split)
    batch = _draws(data, split, sorted({0, size // 3, 2 * size // 3, size - 1}))
    return {name: values for name, values in batch.items() if name not in leave_out}


def varying(data: DataModule, split: Split) -> list[str]:
    """Entries that differ from epoch to epoch, such as random crops and captions drawn out of several."""
    size = data.num_rows(split)
    rows = range(min(size, _NUM_ROWS))
    first, *later = (_draws(data, split, [epoch * size + row for row in rows]) for epoch in range(_NUM_EPOCHS))
    return sorted(name for name in first if any(not _same(first[name], batch[name]) for batch in later))


def write_probe(path: Path, rows: Batch) -> None:
    """Store the rows of a probe."""
    write_whole(path, pack(rows))


def check_probe(path: Path, rows: Batch) -> None:
    """Check that rows are those that were stored.

    Args:
        path: File of `write_probe`.
        rows: The same rows of the data at hand.

    Raises:
        ValueError: naming the entry that differs.
    """
    tensors = Shard(path)
    stored = tensors.take(torch.arange(len(rows["index"])))
    for name in {**stored, **rows}:
        if name not in stored or name not in rows or not alike(stored[name], rows[name]):
            raise ValueError(
                f"{path.parent} was prepared from other data: {name} of rows {rows['index'].tolist()} differs; "  # pyright: ignore
                "expected the same files, read with the same settings, such as crop and size; prepare another folder "
                "with `mmdiffusion prepare`, or take the settings that this one was made with"
            )


def _draws(data: DataModule, split: Split, draws: Sequence[int]) -> Batch:
    return data.split(split).__getitems__(draws)  # pyright: ignore[reportAttributeAccessIssue]


def _same(first: Any, second: Any) -> bool:
    return torch.equal(first, second) if isinstance(first, Tensor) else bool(first == second)


def alike(stored: Tensor | list[str], found: Tensor | list[str]) -> bool:
    """Whether two columns hold the same, but for the rounding of decoders."""
    if not (isinstance(stored, Tensor) and isinstance(found, Tensor)):
        return isinstance(stored, list) and isinstance(found, list) and stored == found
    if stored.shape != found.shape or stored.dtype != found.dtype:
        return False
    if stored.dtype not in (torch.uint8, torch.float32, torch.float64):
        return torch.equal(stored, found)
    before, after = stored.double(), found.double()
    allowed = _LEVELS if stored.dtype == torch.uint8 else _SHARE * float(before.abs().mean()) + 1e-6
    return bool((before - after).abs().mean() <= allowed)
