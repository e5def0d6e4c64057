"""What samples are measured beside: their conditions, and the real data that belong to these."""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from mmdiffusion.callbacks.draws import Conditions
from mmdiffusion.data.base import Arrays, DataModule, Split
from mmdiffusion.types import Batch

REFERENCE = "reference_"
"""Before the name of a modality: the real data that belong to a sample's condition."""


def partners(batch: Batch, given: Conditions, read: Collection[str], order: Tensor) -> Batch:
    """Conditions of samples, and the real data that belong to these.

    Args:
        batch: The samples.
        given: Their conditions.
        read: Entries that are read: names of modalities, real data with `reference_` before; others may be left out.
        order: Sample whose partners each sample gets: its own, or to shuffle them another's.
    """
    index = batch["index"]
    assert isinstance(index, Tensor)
    rows = order[index.cpu()].tolist()
    conditions = given.of(rows) if set(given.given) & set(read) else {}
    needed = [entry for entry in read if entry.startswith(REFERENCE)] if given.given else []
    return conditions | references(given.data, given.split, rows, needed)


def references(data: DataModule, split: Split, rows: Sequence[int], needed: Iterable[str]) -> Batch:
    """Real data of some rows, named as metrics read them.

    Args:
        data: The data module.
        split: Where they come from.
        rows: Which rows.
        needed: Entries, `reference_` before the modality's name.
    """
    names = [entry.removeprefix(REFERENCE) for entry in needed]
    real = data.rows(split, rows, names) if names else {}
    return {REFERENCE + name: real[name] for name in names}


def own_rows(batch: Batch, conditions: Iterable[str], needed: Iterable[str], data: DataModule, split: Split) -> Batch:
    """Conditions and real data of the rows of the split that have the samples' own indices.

    Args:
        batch: The samples.
        conditions: Names of the modalities that are conditions.
        needed: Entries that hold real data, `reference_` before the modality's name.
        data: The data module.
        split: Where they come from.
    """
    index = batch["index"]
    assert isinstance(index, Tensor)
    rows = index.tolist()
    return data.rows(split, rows, list(conditions)) | references(data, split, rows, needed)


def training_rows(data: DataModule, num_samples: int) -> list[int]:
    """Training rows that stand for all: one of each label in turn; evenly spread where the split is not in memory.

    Args:
        data: The data module.
        num_samples: How many are wanted; there may be fewer.
    """
    split, size = data.source.split("train"), data.source.num_rows("train")
    if isinstance(split, Arrays):
        return in_turn(split.columns)[:num_samples].tolist()
    return [row * size // num_samples for row in range(num_samples)] if num_samples < size else list(range(size))


def in_turn(columns: Batch) -> Tensor:
    """Rows in their order, but one of each label in turn, so that the first few are balanced."""
    label = columns.get("label")
    if not isinstance(label, Tensor):
        return torch.arange(len(columns["index"]))
    by_label = label.argsort(stable=True)
    first = torch.searchsorted(label[by_label], label[by_label])
    turn = torch.empty_like(by_label)
    turn[by_label] = torch.arange(len(label)) - first
    return turn.argsort(stable=True)
