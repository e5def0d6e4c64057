"""Going on with a training: checkpoints that are written whole or not at all, and where a training stands in one."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Trainer

from mmdiffusion.checkpoints import CHECKPOINT, PREVIOUS, damage

PART = ".part"
"""Ending of a file that is being written."""
DAMAGED = ".damaged"
"""Ending of a checkpoint that was found damaged."""
FORMAT = 1
"""Number of the way in which a checkpoint says where training goes on; those without one say it inexactly."""
KEY = "mmdiffusion"
"""Entry of a checkpoint that holds the format."""


# Files ---------------------------------------------------------------------------------------------------------


def write_whole(contents: dict[str, Any], path: Path) -> None:
    """Write a checkpoint under another name, wait for the disk, and rename it; `last.ckpt` becomes `previous.ckpt`.

    So a file under its own name is whole at any moment, whatever ends the process or the machine.

    Args:
        contents: Tensors and plain data.
        path: The checkpoint; its folder is made.

    Raises:
        ValueError: if it cannot be written; what was there before is untouched.
    """
    part = path.with_name(path.name + PART)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(contents, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # PyTorch reports a full disk as either
        part.unlink(missing_ok=True)
        kept = f"the last good one is {path}" if path.is_file() else "there is none before it"
        raise ValueError(
            f"checkpoint {path} cannot be written: {_reason(error)}; {kept}. Make room, or give --run on "
            "another disk; then go on with `mmdiffusion fit --run FOLDER`"
        ) from error
    if path.name == CHECKPOINT.name and path.is_file():
        path.replace(path.with_name(PREVIOUS))
    part.replace(path)
    _flush_names(path.parent)


def _reason(error: BaseException) -> BaseException:
    """What the system said, which PyTorch reports as a broken archive while it closes that."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return found or error


def _flush_names(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def set_aside(folder: Path) -> None:
    """Rename a damaged last checkpoint, so that it never takes the place of the whole one before it.

    It is read once more: where it was missing a moment ago, another process may have written it since.
    """
    last = folder / CHECKPOINT
    if last.is_file() and damage(last) is not None:
        last.replace(last.with_name(last.name + DAMAGED))


# Where training goes on ----------------------------------------------------------------------------------------


class Position(NamedTuple):
    """Where a training stands between two batches.

    Attributes:
        epoch: Epoch of the next batch.
        batches: Batches of this epoch that this process has had.
        is_validation_due: A validation comes first.
    """

    epoch: int
    batches: int
    is_validation_due: bool


def position(trainer: Trainer) -> Position:
    """Where a training stands, at the end of a batch."""
    loop = trainer.fit_loop
    progress, epochs = loop.epoch_loop.batch_progress, loop.epoch_progress.current
    fetcher = loop._data_fetcher
    is_due = fetcher is not None and loop.epoch_loop._should_check_val_fx(fetcher)
    if progress.is_last_batch and not is_due:
        return Position(epochs.ready, 0, False)
    batches = progress.current.processed  # pyright: ignore[reportAttributeAccessIssue] - typed as its base
    return Position(max(0, epochs.ready - 1), batches, is_due)


def settle(loops: dict[str, Any], where: Position, global_step: int) -> None:
    """Make the loops' counters those of a training between two batches, whatever hook a checkpoint was written in.

    Lightning's own tell from differences between counters what is still to be done; they lose a validation that is
    due, or count an epoch's end twice.

    Args:
        loops: `loops` of a checkpoint; changed in place.
        where: Where the training stands.
        global_step: Optimizer steps taken.
    """
    fit = loops["fit_loop"]
    batches, epochs = fit["epoch_loop.batch_progress"], fit["epoch_progress"]
    _count(batches["total"], batches["total"]["processed"])
    _count(batches["current"], where.batches)
    batches["is_last_batch"] = batches["is_last_batch"] and where.batches > 0
    has_begun = where.batches > 0
    for part in epochs.values():
        _count(part, where.epoch)
        part["ready"] += has_begun
        part["started"] += has_begun
    due = fit["epoch_loop.val_loop.batch_progress"]
    for name in ("total", "current"):
        _count(due[name], 0)
    if where.is_validation_due:  # this is how Lightning is told that a validation has begun and has to be run
        due["total"]["ready"] = due["total"]["started"] = 1
    due["is_last_batch"] = False
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = global_step - where.is_validation_due


def _count(part: dict[str, int], number: int) -> None:
    part.update(dict.fromkeys(part, number))


def check_format(contents: dict[str, Any], checkpoint: str | Path) -> None:
    """Check that a training can go on from a checkpoint to the bit.

    Args:
        contents: Of the checkpoint.
        checkpoint: Where it is.

    Raises:
        ValueError: naming the version that wrote it.
    """
    found = contents.get(KEY, {})
    if found.get("format") != FORMAT:
        version = f"mmdiffusion {found['version']}" if found else "an early mmdiffusion 0.1.0"
        raise ValueError(
            f"checkpoint {checkpoint} was written by {version}, in format {found.get('format', 0)}: expected format "
            f"{FORMAT}, training cannot go on from it exactly. `test`, `predict` and `mmdiffusion.load` read it; the "
            "callback StartFrom starts a new training with its weights"
        )
