"""Checkpoints and exports as files: where a run keeps its last, and how one is read without running what it holds."""

import dataclasses
import json
import logging
import zipfile
from pathlib import Path
from typing import Any, get_args

import torch
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mmdiffusion.types import Spec

CONFIG = "config.yaml"
"""Settings of a run, in its folder."""
CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""The last checkpoint, inside a run's folder."""
PREVIOUS = "previous.ckpt"
"""Name of the one before, beside it."""
METHOD, WEIGHTS = "method.json", "model.safetensors"
"""Inside an export: what the method is built from, and its weights."""
FORMAT = 1
"""Of an export; a reader refuses any other."""
PICKLES = (".bin", ".pickle", ".pkl", ".pt", ".pth")
"""Endings of files that other programs write weights into, and that may run code when they are read."""
SPECS = {kind.__name__: kind for kind in get_args(Spec)}

_log = logging.getLogger(__name__)


def checkpoint_of(path: str | Path) -> Path:
    """The file to read, for the folder of a run or an export, or for that file.

    Raises:
        ValueError: if all checkpoints of a run are damaged, or the file has tensors that differ from what was written.
    """
    path = Path(path)
    if not path.is_dir():
        check_sums(path)
        return path
    is_export = any((path / name).is_file() for name in (METHOD, WEIGHTS)) or bool(pickles(path))
    return path / METHOD if is_export else newest_whole(path) or path / CHECKPOINT


def check_sums(checkpoint: Path) -> None:
    """Check that a checkpoint holds what was written; what is no archive is for whoever reads it to refuse.

    Raises:
        ValueError: naming the part that differs.
    """
    try:
        wrong = differing(checkpoint)
    except Exception:
        return
    if wrong is not None:
        raise ValueError(f"checkpoint {checkpoint} is damaged: {wrong} differs from what was written")


def pickles(folder: Path) -> list[Path]:
    """Files of a folder that may hold pickles, by their names."""
    return sorted(path for path in folder.iterdir() if path.suffix in PICKLES)


def newest_whole(run: Path) -> Path | None:
    """The last checkpoint of a run, or the one before if that is damaged or missing, which is said.

    Args:
        run: Its folder, in which nothing is changed.

    Returns:
        `None` when there is none yet.

    Raises:
        ValueError: if there are some, all damaged.
    """
    last = run / CHECKPOINT
    paths = [path for path in (last, last.with_name(PREVIOUS)) if path.is_file()]
    notes = [f"{last} is missing"] if paths and last not in paths else []
    for path in paths:
        problem = damage(path)
        if problem is None:
            if notes:
                _warn(f"{'; '.join(notes)}; taken is the one before, {path}")
            return path
        notes.append(f"{path} is damaged: {problem}")
    if notes:
        raise ValueError(f"{'; '.join(notes)}. There is no whole checkpoint in this run: start a new one")
    return None


@rank_zero_only
def _warn(note: str) -> None:
    _log.warning(note)


def differing(checkpoint: Path) -> str | None:
    """Name of a part of a checkpoint that differs from what was written.

    Args:
        checkpoint: The file; PyTorch writes an archive with a check sum for each tensor, and does not look at them.
    """
    with zipfile.ZipFile(checkpoint) as archive:
        return archive.testzip()


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint file: `None` when every byte is as it was written.

    Args:
        checkpoint: The file.
    """
    try:
        wrong = differing(checkpoint)
        if wrong is not None:
            return f"{wrong} differs from what was written"
        torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)  # its reader is stricter with names
    except (OSError, zipfile.BadZipFile) as error:
        return str(error)
    except Exception as error:  # one wrong byte can mean an unknown version, a password or a name that is no text
        return f"it cannot be read, {type(error).__name__}"
    return None


def read_checkpoint(checkpoint: str | Path) -> dict:
    """A checkpoint's contents, tensors and plain data only; those of an export, for one of its files.

    Raises:
        ValueError: if there is no file, or it is not a checkpoint of ours.
    """
    if Path(checkpoint).name in (METHOD, WEIGHTS):
        return read_export(Path(checkpoint).parent)
    if not Path(checkpoint).is_file():
        raise ValueError(f"checkpoint {checkpoint}: no such file")
    try:
        contents = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = f"it cannot be read as tensors and plain data: {type(error).__name__}"
        raise ValueError(f"checkpoint {checkpoint}: not a checkpoint of mmdiffusion; {reason}") from error
    settings = contents.get("hyper_parameters") if isinstance(contents, dict) else None
    if not isinstance(settings, dict) or "_class_path" not in settings:
        raise ValueError(f"checkpoint {checkpoint}: it names no method; expected one written by `mmdiffusion fit`")
    return contents


# Exports -------------------------------------------------------------------------------------------------------


def write_export(folder: Path, contents: dict) -> None:
    """Write what a checkpoint knows of its method, its averaged weights among it.

    Args:
        folder: Where to; it exists.
        contents: The checkpoint.
    """
    kept = {name: contents[name] for name in ("hyper_parameters", "autoencoder") if name in contents}
    method = json.dumps({"format": FORMAT} | kept, indent=2, default=described) + "\n"
    (folder / METHOD).write_text(method, encoding="utf-8")
    # clones: the format has no place for tensors that share their memory
    weights = {name: tensor.clone().contiguous() for name, tensor in contents["state_dict"].items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def read_export(folder: Path) -> dict:
    """What `write_export` has written, in the form of a checkpoint.

    Raises:
        ValueError: naming the file that is missing, is a pickle, or is not ours.
    """
    remedy = f"write it anew with `mmdiffusion export --run RUN --to {folder}`"
    for name in (METHOD, WEIGHTS):
        if not (folder / name).is_file():
            found = ", ".join(path.name for path in pickles(folder)) if folder.is_dir() else ""
            reason = f"; {found} may run code when opened, and is not read" if found else ""
            raise ValueError(f"export {folder}: {name} is missing{reason}; {remedy}")
    try:
        method = json.loads((folder / METHOD).read_text(encoding="utf-8"), object_hook=undescribed)
        found, _ = method["format"], method["hyper_parameters"]["_class_path"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"export {folder}: {METHOD} is not one of mmdiffusion; {remedy}") from error
    if found != FORMAT:
        raise ValueError(f"export {folder}: {METHOD} has format {found}, expected {FORMAT}; {remedy}")
    try:
        return method | {"state_dict": load_file(folder / WEIGHTS)}
    except SafetensorError as error:
        raise ValueError(f"export {folder}: {WEIGHTS} cannot be read, {error}; {remedy}") from error


def described(value: Any) -> dict[str, Any]:
    """The description of a modality as plain data, for JSON."""
    assert type(value).__name__ in SPECS, value
    return {"_spec": type(value).__name__} | dataclasses.asdict(value)


def undescribed(value: dict[str, Any]) -> Any:
    """The description of a modality from plain data; other data as it is."""
    kind = SPECS.get(str(value.get("_spec")))
    if kind is None:
        return value
    return kind(**{name: as_tuples(entry) for name, entry in value.items() if name != "_spec"})


def as_tuples(value: Any) -> Any:
    """Lists as tuples, however deep: the descriptions have no others."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value
