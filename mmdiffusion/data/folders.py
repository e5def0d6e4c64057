"""What is in a folder: files of the desktop left out, extensions in any case."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Extensions of picture files, in lower case."""


def file_names(folder: str | Path, extensions: Iterable[str] = PICTURES) -> list[str]:
    """Names of the files of a folder in order, without hidden ones.

    Args:
        folder: The folder; one that is missing has none.
        extensions: Extensions in lower case, with the dot.
    """
    return sorted(name for name in _names(folder, True) if os.path.splitext(name)[1].lower() in extensions)


def folder_names(folder: str | Path) -> list[str]:
    """Names of the folders in a folder in order, without hidden ones.

    Args:
        folder: The folder; one that is missing has none.
    """
    return sorted(_names(folder, False))


def first_with(places: Sequence[Path], names: Iterable[str]) -> Path | None:
    """The first folder that has a folder of one of some names; `None` if none has."""
    wanted = tuple(names)
    return next((place for place in places if any((place / name).is_dir() for name in wanted)), None)


def _names(folder: str | Path, is_file: bool) -> list[str]:
    if not Path(folder).is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.name[0] != "." and entry.is_dir() is not is_file]
