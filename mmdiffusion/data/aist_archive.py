"""The AIST++ annotations as they are unpacked: which sequences a split has, and the windows they are cut into."""

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from mmdiffusion.data.aist_names import FPS, DanceName, parse_name
from mmdiffusion.data.base import Split

PUBLISHER = "https://google.github.io/aistplusplus_dataset/download.html"
NUM_SEQUENCES: dict[Split, int] = {"train": 980, "val": 20, "test": 20}
"""Names in the published lists of the cross-modal split."""
_SMALLEST_REST = 2 * FPS
"""Frames at the end of a dance from which on they get a window of their own."""


def split_names(folder: Path, split: Split, drop_ignored: bool) -> list[DanceName]:
    """Sequences of the cross-modal split, in the order of the list.

    Args:
        folder: The annotations.
        split: Which.
        drop_ignored: Whether to leave out those that `ignore_list.txt` names.

    Raises:
        ValueError: if a list is missing, empty, or has something else than names.
    """
    names = read_lines(folder / "splits" / f"crossmodal_{split}.txt", "the list of names of the split")
    ignored = set(read_lines(folder / "ignore_list.txt", "the list of names to ignore")) if drop_ignored else set()
    if len(names) != NUM_SEQUENCES[split]:
        rank_zero_warn(
            f"AIST++ {split}: {folder / 'splits'} lists {len(names)} sequences, published are {NUM_SEQUENCES[split]}; "
            "figures are comparable with others' for the published split only"
        )
    kept = [parse_name(name) for name in names if name not in ignored]
    if not kept:
        raise ValueError(f"{folder / 'splits'}: crossmodal_{split}.txt has no name left, expected at least one")
    return kept


def read_lines(path: Path, what: str) -> list[str]:
    """Lines of a list that are not blank.

    Args:
        path: The file.
        what: What it is, for the message.

    Raises:
        ValueError: if it is missing.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: expected {what}, from {PUBLISHER}")
    return path.read_text(encoding="utf-8").split()


def present(names: Sequence[DanceName], folder: Path, split: Split) -> list[DanceName]:
    """Sequences whose pickles are there; a subset is used, and said.

    Args:
        names: Of a split.
        folder: Has `<name>.pkl` for every sequence.
        split: Which, for the message.

    Raises:
        ValueError: if the folder is missing, or has none of them.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing: expected a pickle for each sequence, from {PUBLISHER}")
    stored = {path.stem for path in folder.glob("*.pkl")}
    found = [name for name in names if name.text in stored]
    if not found:
        raise ValueError(
            f"{folder} has none of the {len(names)} sequences of the {split} split: expected such as "
            f"{names[0].text}.pkl; unpack the annotations of {PUBLISHER}"
        )
    if len(found) < len(names):
        rank_zero_warn(
            f"AIST++ {split}: {len(found)} of {len(names)} sequences are in {folder}; figures are comparable with "
            "those of others for a whole split only"
        )
    return found


def windows(num_frames: int, length: int, stride: int) -> list[int]:
    """First frames of the windows of a dance.

    They start every `stride` frames as long as they fit. Where two seconds or more are left after the last, one more
    ends with the dance: with windows side by side, as many as the published segments of two and of six seconds.

    Args:
        num_frames: Frames of the dance.
        length: Frames of a window.
        stride: Frames from one window to the next.
    """
    starts = list(range(0, num_frames - length + 1, stride))
    is_long = bool(starts) and num_frames - (starts[-1] + length) >= _SMALLEST_REST
    return [*starts, num_frames - length] if is_long else starts
