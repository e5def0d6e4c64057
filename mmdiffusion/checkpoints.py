"""Checkpoints and exports as files: where a run keeps its last, and how one is read without running what it holds."""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mmdiffusion.types import Spec

CONFIG = "config.yaml"
"""Settings of a run, in its folder."""
CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""The last checkpoint, inside a run's folder."""
METHOD, WEIGHTS = "method.json", "model.safetensors"
"""Inside an export: what the method is built from, and its weights."""
FORMAT = 1
"""Of an export; a reader refuses any other."""
PICKLES = (".bin", ".pickle", ".pkl", ".pt", ".pth")
"""Endings of files that other programs write weights into, and that may run code when they are read."""
SPECS = {kind.__name__: kind for kind in get_args(Spec)}


def checkpoint_of(path: str | Path) -> Path:
    """The file to read, for the folder of a run or an export, or for that file."""
    path = Path(path)
    if not path.is_dir():
        return path
    is_export = any((path / name).is_file() for name in (METHOD, WEIGHTS)) or bool(pickles(path))
    return path / METHOD if is_export else path / CHECKPOINT


def pickles(folder: Path) -> list[Path]:
    """Files of a folder that may hold pickles, by their names."""
    return sorted(path for path in folder.iterdir() if path.suffix in PICKLES)


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
