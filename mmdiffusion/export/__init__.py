"""`mmdiffusion export`: a trained method as a folder to hand on."""

import os
import shutil
from pathlib import Path

from mmdiffusion.checkpoints import METHOD, WEIGHTS, read_checkpoint, write_export
from mmdiffusion.export.card import model_card
from mmdiffusion.runs import CONFIG, existing_run, import_own, load_method

CARD = "README.md"
FILES = (METHOD, WEIGHTS, CONFIG, CARD)
"""What an export consists of."""


def export(run: str, to: str | None = None) -> Path:
    """Write the averaged weights of a run, its settings and a model card; `mmdiffusion.load` reads the folder.

    What a method reads by a path, such as a pretrained text tower, stays where it is; the card names it.

    Args:
        run: Folder of a finished run.
        to: Folder to write, which does not exist or is empty; `None` for `export` in the run's.

    Returns:
        The folder, which appears complete or not at all.

    Raises:
        ValueError: if `run` is no finished run, its method cannot be rebuilt, or `to` is taken.
    """
    source, checkpoint = existing_run(run)
    folder = source / "export" if to is None else Path(to)
    folder = folder.resolve() if folder.is_symlink() else folder  # a link cannot be replaced by a folder
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"--to is {folder}: it exists, and an export is never overwritten; give another folder")
    import_own(source)
    method, contents = load_method(checkpoint), read_checkpoint(checkpoint)
    part = folder.with_name(f"{folder.name}.part")
    clear(part)
    write_export(part, contents)
    shutil.copyfile(source / CONFIG, part / CONFIG)
    (part / CARD).write_text(model_card(source, method, contents), encoding="utf-8")
    os.replace(part, folder)
    return folder


def clear(part: Path) -> None:
    """Make a folder to write into, in place of what an export that was interrupted has left.

    Args:
        part: The folder.

    Raises:
        ValueError: if it holds anything else.
    """
    foreign = sorted(path.name for path in part.iterdir() if path.name not in FILES) if part.is_dir() else []
    if foreign:
        raise ValueError(
            f"{part} holds {foreign[0]}: expected no such folder, or what an interrupted export left there; move it, "
            "or give another --to"
        )
    if part.is_dir():
        shutil.rmtree(part)
    part.mkdir(parents=True)
