"""Folders as users unpack them, and what is said of what is in them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

_NUM_NAMED = 10
"""Problems that a message names."""


def unfold(folder: Path, name: str) -> Path | None:
    """A folder by its name, the inner one where an archive was unpacked into a folder of its own name.

    Args:
        folder: Where to look.
        name: Its name.

    Returns:
        folder/name, or folder/name/name and so on; `None` where there is none.
    """
    found = folder / name
    if not found.is_dir():
        return None
    while (found / name).is_dir():
        found /= name
    return found


def first_folder(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first folder that is there; see `unfold`.

    Args:
        folders: Where to look.
        names: Which names it may have, the usual one first.
    """
    found = (unfold(folder, name) for folder in folders for name in names)
    return next((folder for folder in found if folder is not None), None)


def existing_folder(root: str | Path, what: str) -> Path:
    """The folder that a user names.

    Args:
        root: Its path.
        what: What it should hold, for the message.

    Raises:
        ValueError: if there is none.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "missing"
        raise ValueError(f"root is {root}, which is {found}: expected a folder with {what}")
    return folder


def unpacked(root: str | Path, inside: str, what: str) -> Path:
    """Where an archive is, however it was unpacked: `root` itself, a folder in it, or one in that.

    Args:
        root: As the user gave it.
        inside: A path that the archive has at its top.
        what: What is looked for, and where it is offered, for the message.

    Raises:
        ValueError: if it is not there.
    """
    folder = existing_folder(root, what)
    places = [folder / inside, *sorted(folder.glob(f"*/{inside}")), *sorted(folder.glob(f"*/*/{inside}"))]
    for place in places:
        if place.exists():
            return Path(str(place).removesuffix(inside))
    raise ValueError(f"root is {root}: found no {inside} in it, nor up to two folders deeper; expected {what}")


def some_of(problems: Sequence[str]) -> str:
    """Problems in a row: the first ten, and how many there are beyond these.

    Args:
        problems: One text for each.
    """
    more = f" (and {len(problems) - _NUM_NAMED} more)" if len(problems) > _NUM_NAMED else ""
    return "; ".join(problems[:_NUM_NAMED]) + more


def check_share(problems: Sequence[str], total: int, max_bad_fraction: float, remedy: str) -> None:
    """Say what of an index cannot be used and is left out; stop if it is too much.

    Args:
        problems: One text for each sample that is left out.
        total: Samples, these among them.
        max_bad_fraction: Share of them that may be left out.
        remedy: What a user can do about it.

    Raises:
        ValueError: if more cannot be used.
    """
    if not problems:
        return
    said = f"{len(problems)} of {total} samples cannot be used: {some_of(problems)}"
    if len(problems) > max_bad_fraction * total:
        raise ValueError(f"{said}. max_bad_fraction is {max_bad_fraction}: expected fewer; {remedy}, or raise it")
    rank_zero_warn(f"{said}. They are left out.")


def say_counts(name: str, found: Mapping[str, int], published: Mapping[str, int]) -> None:
    """Say how many samples were found, and warn where the published numbers are others.

    Args:
        name: What was indexed, and where.
        found: Numbers of samples by what they are.
        published: The published ones.
    """
    counts = ", ".join(f"{number:,} {what}" for what, number in found.items())
    whole = ", ".join(f"{published[what]:,} {what}" for what in found)
    if counts == whole:
        rank_zero_info(f"{name}: {counts}, as published")
    else:
        rank_zero_warn(f"{name}: {counts}; published are {whole}")
