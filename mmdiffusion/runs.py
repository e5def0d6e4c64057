"""Run folders: where a run writes, and how a trained method comes back from one."""

import re
from pathlib import Path

import torch

from mmdiffusion.methods.base import Method

CONFIG = "config.yaml"
CHECKPOINT = Path("checkpoints") / "last.ckpt"


def new_run(run: str | None, config: str | None) -> Path:
    """Folder of a new run; it is not created.

    Args:
        run: Folder asked for; `None` takes the next free `runs/<experiment>/<n>`.
        config: Path of the experiment's first configuration file, which names the experiment.

    Raises:
        ValueError: if the folder exists and is not empty.
    """
    if run is not None:
        path = Path(run)
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise ValueError(f"--run is {run}: it exists, and a run is never overwritten; give another folder")
        return path
    experiment = Path("runs") / experiment_name(config)
    taken = [int(p.name) for p in experiment.glob("*") if re.fullmatch(r"\d+", p.name)]
    return experiment / str(max(taken, default=-1) + 1)


def experiment_name(config: str | None) -> str:
    """`mt_diffusion/digits` for any path that ends in `mt_diffusion/digits.yaml`; `unnamed` without a file."""
    return "unnamed" if config is None else "/".join(Path(config).with_suffix("").parts[-2:])


def existing_run(run: str) -> Path:
    """A folder that a run has written.

    Raises:
        ValueError: naming what is missing.
    """
    path = Path(run)
    for part in (CONFIG, CHECKPOINT):
        if not (path / part).is_file():
            raise ValueError(
                f"--run is {run}: expected the folder of a finished run, but {path / part} is missing; "
                "make one with `mmdiffusion fit -c CONFIG --run FOLDER`"
            )
    return path


def check_checkpoint(checkpoint: str | Path, class_path: str) -> None:
    """Check that a checkpoint belongs to a method.

    Args:
        checkpoint: Path of a `.ckpt` file.
        class_path: Class of the method that is to read it.

    Raises:
        ValueError: if there is no file, it is not ours, or another method wrote it.
    """
    found = read_checkpoint(checkpoint)["hyper_parameters"]["_class_path"]
    if found.rsplit(".", 1)[-1] != class_path.rsplit(".", 1)[-1]:
        raise ValueError(f"checkpoint {checkpoint} was written by {found}: expected one of {class_path}")


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
        raise ValueError(f"checkpoint {checkpoint}: not a checkpoint of mmdiffusion ({error})") from error
    if "_class_path" not in contents.get("hyper_parameters", {}):
        raise ValueError(f"checkpoint {checkpoint}: it names no method; expected one written by `mmdiffusion fit`")
    return contents


def load_method(path: str | Path) -> Method:
    """Rebuild a trained method; see `mmdiffusion.load`."""
    import mmdiffusion.methods.mt_diffusion  # noqa: F401  Lightning rebuilds imported classes only

    checkpoint = Path(path) / CHECKPOINT if Path(path).is_dir() else Path(path)
    read_checkpoint(checkpoint)
    return Method.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
