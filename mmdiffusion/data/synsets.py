"""ImageNet's classes as its publishers list them: folders' names (wnids), class numbers, and what validation shows."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import scipy.io

KAGGLE = "kaggle.com/c/imagenet-object-localization-challenge"
NUM_CLASSES = 1000
_MAPPING, _SOLUTION = "LOC_synset_mapping.txt", "LOC_val_solution.csv"
_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
_DEVKIT = ("ILSVRC2012_devkit_t12/data", "data", ".")


class Synsets(NamedTuple):
    """The classes in the order of their usual numbers, which is that of their wnids.

    Attributes:
        wnids: WordNet ids, the names of the folders.
        names: Names in words, no two alike.
    """

    wnids: tuple[str, ...]
    names: tuple[str, ...]


def read_synsets(places: Sequence[Path], folders: Sequence[str]) -> Synsets:
    """Classes from Kaggle's list or the development kit; without them, from the folders of all 1,000.

    Args:
        places: Folders to look in.
        folders: Class folders that are there.

    Raises:
        ValueError: if a list is damaged, or there is none and folders are missing.
    """
    if (path := find(places, _MAPPING)) is not None:
        return _from_mapping(path)
    if (path := find(places, _META)) is not None:
        wnids = _from_devkit(path)
        return _distinct(sorted(wnids.values()))
    if len(folders) != NUM_CLASSES:
        raise ValueError(
            f"{places[0]} has {len(folders)} class folders and no {_MAPPING}: expected that file, which numbers all "
            f"{NUM_CLASSES} classes, from {KAGGLE} (or the development kit of image-net.org, with {_META})"
        )
    return _distinct([(wnid, wnid) for wnid in sorted(folders)])


def read_val_labels(places: Sequence[Path]) -> dict[str, str]:
    """Wnid of each validation picture that lies in no class folder, by its file name without extension.

    Args:
        places: Folders to look in.

    Raises:
        ValueError: if there is no list of them, or it is damaged.
    """
    if (path := find(places, _SOLUTION)) is not None:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.reader(lines) if len(row) == 2][1:]
        return {name: answer.split()[0] for name, answer in rows if answer}
    truth, meta = find(places, _TRUTH), find(places, _META)
    if truth is not None and meta is not None:
        wnids = _from_devkit(meta)
        numbers = truth.read_text(encoding="ascii").split()
        unknown = [number for number in numbers if not number.isdigit() or int(number) not in wnids]
        if unknown:
            raise ValueError(f"{truth} has {unknown[0]!r}: expected class numbers of {meta}")
        return {f"ILSVRC2012_val_{i:08d}": wnids[int(number)][0] for i, number in enumerate(numbers, 1)}
    raise ValueError(
        f"{places[0]}: the pictures of val lie in no class folders, and {_SOLUTION} is missing; expected that file, "
        f"from {KAGGLE}, or the development kit of image-net.org ({_TRUTH} and {_META})"
    )


def find(places: Sequence[Path], name: str) -> Path | None:
    """A list by its name, in one of several folders or the development kit unpacked there; `None` if it is nowhere."""
    paths = (place / folder / name for place in places for folder in _DEVKIT)
    return next((path for path in paths if path.is_file()), None)


def _from_mapping(path: Path) -> Synsets:
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split(maxsplit=1) for line in lines if line.strip()]
    wrong = next((number for number, row in enumerate(rows, 1) if len(row) != 2), None)
    if len(rows) != NUM_CLASSES or wrong is not None or rows != sorted(rows):
        where = f"line {wrong} is no 'wnid name'" if wrong else f"{len(rows)} lines"
        raise ValueError(f"{path}: {where}, expected {NUM_CLASSES} lines 'wnid name, name, ...' in the order of wnids")
    return _distinct([(wnid, names) for wnid, names in rows])


def _from_devkit(path: Path) -> dict[int, tuple[str, str]]:
    try:
        rows = scipy.io.loadmat(path, squeeze_me=True)["synsets"]
        table = {int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"])) for row in rows}
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"{path} is not the list of classes of the ILSVRC 2012 development kit: {error}") from error
    leaves = {number: row for number, row in table.items() if number <= NUM_CLASSES}  # what follows are their parents
    if len(leaves) != NUM_CLASSES:
        raise ValueError(f"{path} has {len(leaves)} classes: expected {NUM_CLASSES}")
    return leaves


def _distinct(rows: Sequence[tuple[str, str]]) -> Synsets:
    """The first of the names; where two classes share it, all names; where they share all, the wnid as well."""
    first = [names.split(",")[0].strip() for _, names in rows]
    count, count_all = Counter(first), Counter(names for _, names in rows)
    made = [
        name if count[name] == 1 else names if count_all[names] == 1 else f"{names} ({wnid})"
        for name, (wnid, names) in zip(first, rows, strict=True)
    ]
    return Synsets(tuple(wnid for wnid, _ in rows), tuple(made))
