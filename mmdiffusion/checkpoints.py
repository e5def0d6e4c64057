"""Checkpoints as files: where a run keeps its last, and how one is read without running what it holds."""

from pathlib import Path

import torch

CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""The last checkpoint, inside a run's folder."""


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint itself, for a run's folder or a checkpoint."""
    return Path(path) / CHECKPOINT if Path(path).is_dir() else Path(path)


def read_checkpoint(checkpoint: str | Path) -> dict:
    """A checkpoint's contents, tensors and plain data only.

    Raises:
        ValueError: if there is no file, or it is not a checkpoint of ours.
    """
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
