"""Run folders: where a run writes, and how a trained method comes back from one."""

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.cli import instantiate_module
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

import mmdiffusion.methods  # noqa: F401  its methods are those that can be loaded without further imports
from mmdiffusion.checkpoints import CHECKPOINT, CONFIG, checkpoint_of, newest_whole, read_checkpoint
from mmdiffusion.methods.base import Method
from mmdiffusion.resuming import check_format, set_aside

DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
"""How a class or function is named in settings."""


def new_run(run: str | None, config: str | None) -> Path:
    """Folder of a new run; it is not created.

    The first of several processes chooses, the others are told. All look, before any of them makes it: one that was
    refused alone would leave the others waiting.

    Args:
        run: Folder asked for; `None` takes the next free `runs/<experiment>/<n>`.
        config: Path of the experiment's first configuration file, which names the experiment.

    Raises:
        ValueError: if the folder exists and is not empty, or a further process is not told which it is.
    """
    if run is None and rank_zero_only.rank != 0:  # pyright: ignore[reportFunctionMemberAccess]
        raise ValueError("--run is missing: processes started by torchrun or srun must be told their common folder")
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


def begun_run(run: str | None) -> Path | None:
    """The folder of a run that was begun, and that a fit goes on with; `None` where there is none."""
    return Path(run) if run is not None and (Path(run) / CONFIG).is_file() else None


def checkpoint_to_go_on_from(folder: Path) -> Path | None:
    """The checkpoint that a training goes on from; a damaged last one is set aside.

    Args:
        folder: The run.

    Returns:
        `None` for a run that was stopped before its first checkpoint, and starts again.

    Raises:
        ValueError: if all are damaged, or the run was trained by a version that could not go on.
    """
    checkpoint = newest_whole(folder)
    if checkpoint is None:
        rank_zero_info(f"{folder} has no checkpoint yet: it starts from the beginning")
        return None
    check_format(read_checkpoint(checkpoint), checkpoint)
    if checkpoint != folder / CHECKPOINT:
        rank_zero_only(set_aside)(folder)
    return checkpoint


def check_unfinished(folder: Path, checkpoint: dict[str, Any], max_steps: int, max_epochs: int | None) -> None:
    """Check that there is something left to train.

    Args:
        folder: The run.
        checkpoint: Contents of its last checkpoint.
        max_steps: Steps of the training, -1 for any number.
        max_epochs: Epochs of the training; `None` or -1 for any number.

    Raises:
        ValueError: if the run is finished.
    """
    step = checkpoint["global_step"]
    fit = checkpoint["loops"]["fit_loop"]
    epochs = fit["epoch_progress"]["current"]["processed"] + fit["epoch_loop.batch_progress"]["is_last_batch"]
    if step >= max_steps > 0 or epochs >= (max_epochs or -1) > 0:
        raise ValueError(
            f"--run is {folder}: it is finished, at step {step}, and a run is never overwritten; give another folder, "
            "or train it longer with --trainer.max_steps"
        )


def settings_of(folder: Path) -> dict[str, Any]:
    """Settings of a run.

    Args:
        folder: The run.

    Raises:
        ValueError: if its file of settings holds something else.
    """
    path = folder / CONFIG
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}; expected the settings that `mmdiffusion fit` wrote"
        ) from error
    if not isinstance(found, dict) or not {"trainer", "model", "data"} <= found.keys():
        raise ValueError(f"{path} has no trainer, model and data: expected the settings that `mmdiffusion fit` wrote")
    return found


def existing_run(run: str) -> tuple[Path, Path]:
    """A folder that a run has written, and the checkpoint to read there.

    Raises:
        ValueError: naming what is missing, or if all checkpoints are damaged.
    """
    path = Path(run)
    is_run = (path / CONFIG).is_file()
    checkpoint = newest_whole(path) if is_run else None
    if checkpoint is None:
        raise ValueError(
            f"--run is {run}: expected the folder of a finished run, but {path / (CHECKPOINT if is_run else CONFIG)} "
            "is missing; make one with `mmdiffusion fit -c CONFIG --run FOLDER`"
        )
    settings_of(path)
    return path, checkpoint


def check_checkpoint(checkpoint: str | Path, class_path: str) -> dict[str, Any]:
    """Contents of a checkpoint, if it belongs to a method.

    Args:
        checkpoint: Path of a `.ckpt` file.
        class_path: Class of the method that is to read it.

    Raises:
        ValueError: if there is no file, it is not ours, or another method wrote it.
    """
    contents = read_checkpoint(checkpoint)
    found = contents["hyper_parameters"]["_class_path"]
    if found.rsplit(".", 1)[-1] != class_path.rsplit(".", 1)[-1]:
        raise ValueError(f"checkpoint {checkpoint} was written by {found}: expected one of {class_path}")
    return contents


def method_class(class_path: str) -> type[Method] | None:
    """The method of this path among those already imported: a checkpoint imports nothing."""
    module, _, name = class_path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, Method) else None


def listed(setting: Any) -> list[Any]:
    """One object, several or none, as the trainer takes them: as a list."""
    if setting is None:
        return []
    return setting if isinstance(setting, list) else [setting]


def unknown(settings: Any) -> Iterator[str]:
    """Classes and functions in the settings of a method for which something would be imported that is not yet.

    Args:
        settings: Nested dictionaries and lists; what stands under `path` is a file.
    """
    if isinstance(settings, dict):
        settings = [value for name, value in settings.items() if name != "path"]
    if isinstance(settings, list | tuple):
        for value in settings:
            yield from unknown(value)
    elif isinstance(settings, str) and DOTTED.fullmatch(settings):
        package = settings.partition(".")[0]
        if package not in sys.modules and find_spec(package) is not None:
            yield settings


def import_own(folder: Path) -> None:
    """Import what the settings of a run name, as its training did: whose run it is, trusts its classes.

    Args:
        folder: The run.

    Raises:
        ValueError: if a module cannot be imported.
    """
    for name in list(unknown(settings_of(folder)["model"])):
        try:
            import_module(name.rpartition(".")[0])
        except ImportError as error:
            raise ValueError(f"{folder / CONFIG}: {name} cannot be imported, {error}; set PYTHONPATH") from error


def load_method(path: str | Path) -> Method:
    """Rebuild a trained method; see `mmdiffusion.load`."""
    checkpoint = checkpoint_of(path)
    contents = read_checkpoint(checkpoint)
    settings = {name: value for name, value in contents["hyper_parameters"].items() if name != "_instantiator"}
    kind = method_class(str(settings["_class_path"]))
    if kind is None:
        raise ValueError(
            f"checkpoint {checkpoint}: no method {settings['_class_path']} is imported; import its module first"
        )
    foreign = next(unknown(settings), None)
    if foreign is not None:
        package = foreign.partition(".")[0]
        raise ValueError(f"checkpoint {checkpoint}: {foreign} is of {package}, which is not imported; import it first")
    try:
        with torch.random.fork_rng(devices=[]):  # fresh weights are drawn before the trained ones replace them
            method = instantiate_module(kind, settings)
        method.on_load_checkpoint(contents)
        method.load_state_dict(contents["state_dict"])
    except Exception as error:
        raise ValueError(f"checkpoint {checkpoint}: its method cannot be rebuilt; {error}") from error
    return method.eval()
