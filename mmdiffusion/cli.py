"""The command line: `mmdiffusion prepare | fit | validate | test | predict | export | report`, on LightningCLI."""

import inspect
import logging
import sys
import warnings
from itertools import pairwise

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

import mmdiffusion.callbacks
import mmdiffusion.codecs
import mmdiffusion.data
import mmdiffusion.diffusion
import mmdiffusion.methods
import mmdiffusion.metrics
import mmdiffusion.nn
from mmdiffusion.checkpoints import CONFIG, checkpoint_of
from mmdiffusion.experiment import COMMANDS, MMDiffusionCLI, PrepareCLI
from mmdiffusion.export import export
from mmdiffusion.messages import clear_message, failure
from mmdiffusion.report import report
from mmdiffusion.runs import (
    begun_run,
    checkpoint_to_go_on_from,
    existing_run,
    new_run,
    settings_of,
)
from mmdiffusion.signals import EXIT_STATUS, Stopped
from mmdiffusion.usage import USAGE

HANDED_ON = {"export": export, "report": report}
"""Commands that make something of a finished run."""
OTHERS = ("prepare", *HANDED_ON)
"""Commands that have no trainer."""


def split_path(args: list[str], option: str = "--run") -> tuple[str | None, list[str]]:
    """Take `--run FOLDER` (or `--run=FOLDER`) out of the arguments.

    Args:
        args: The arguments.
        option: Which option names the path.

    Raises:
        ValueError: if the path is missing.
    """
    path, rest, words = None, [], iter(args)
    for word in words:
        if word == option:
            path = next(words, None)
            if path is None:
                raise ValueError(f"{option} is empty: expected a path")
        elif word.startswith(f"{option}="):
            path = word.removeprefix(f"{option}=")
        else:
            rest.append(word)
    return path, rest


def first_config(args: list[str]) -> str | None:
    """Path of the first configuration file among the arguments."""
    for word, following in pairwise([*args, ""]):
        if word in ("-c", "--config"):
            return following
        for start in ("--config=", "-c"):
            if word.startswith(start):
                return word.removeprefix(start).removeprefix("=")
    return None


def execute(args: list[str]) -> None:
    """Run one command.

    Args:
        args: Arguments as typed.

    Raises:
        ValueError: for a mistake in them.
    """
    run, rest = split_path(args)
    command, rest = (rest[0], rest[1:]) if rest else ("", [])
    if command not in (*OTHERS, *COMMANDS):
        known = ", ".join((*OTHERS, *COMMANDS))
        raise ValueError(f"the command is {command!r}: expected one of {known}, before any option")
    if command == "prepare":
        if run is not None:
            raise ValueError(f"--run is {run}: expected none, prepare has no run; --cache.folder names its folder")
        PrepareCLI(rest)
        return
    if command == "fit":
        fit(run, rest)
        return
    if command in HANDED_ON and {"-h", "--help"} & set(rest):
        sys.stdout.write(USAGE)
        return
    if run is None:
        raise ValueError(f"{command} needs --run FOLDER: expected the folder of a finished run")
    if command in HANDED_ON:
        hand_on(command, run, rest)
        return
    other, rest = split_path(rest, "--ckpt_path")
    folder, checkpoint = existing_run(run)
    if other == "null":
        raise ValueError(f"--ckpt_path is null: expected a checkpoint, {command} needs trained weights; leave it out")
    checkpoint = checkpoint if other is None else checkpoint_of(other)
    MMDiffusionCLI(folder, [command, "--config", str(folder / CONFIG), "--ckpt_path", str(checkpoint), *rest])


def hand_on(command: str, run: str, args: list[str]) -> None:
    """Run a command that makes something of a finished run, and trains and measures nothing.

    Args:
        command: One of `HANDED_ON`.
        run: The run.
        args: Arguments beside it.

    Raises:
        ValueError: for a mistake in them.
    """
    to, rest = split_path(args, "--to")
    if rest:
        raise ValueError(f"{command} has no option {rest[0]}: expected --run and --to, and no other")
    rank_zero_info(f"{command}: {HANDED_ON[command](run, to)}")


def fit(run: str | None, rest: list[str]) -> None:
    """Begin a run, or go on with one.

    Args:
        run: Its folder; `None` for a new one.
        rest: Further arguments.

    Raises:
        ValueError: for a mistake in them.
    """
    config, begun = first_config(rest), begun_run(run)
    if not config and not begun and not {"-h", "--help"} & set(rest):
        raise ValueError(
            "fit needs -c CONFIG: expected a configuration file, as in configs/, or --run with a run to go on"
        )
    if begun and not config:
        rest = ["--config", str(begun / CONFIG), *rest]
    other, rest = split_path(rest, "--ckpt_path")
    checkpoint = None if other in (None, "null") else checkpoint_of(other)
    if begun:
        settings_of(begun)
        own = checkpoint_to_go_on_from(begun)
        if other is not None and (checkpoint and checkpoint.resolve()) != (own and own.resolve()):
            raise ValueError(
                f"--ckpt_path is {other}: --run {begun} goes on from its own {own or 'beginning'}, and a run is never "
                "overwritten; leave it out, or give another folder"
            )
        checkpoint = own
    rest = rest if checkpoint is None else [*rest, "--ckpt_path", str(checkpoint)]
    folder = begun or new_run(run, config)
    sys.argv[1:] = ["fit", "--run", str(folder), *rest]  # processes that Lightning launches are given these
    MMDiffusionCLI(folder, ["fit", *rest], goes_on=begun is not None)


def main() -> None:
    """Entry point of the `mmdiffusion` command: the user's mistakes end in one message and status 2."""
    args = sys.argv[1:]
    quieten()
    try:
        execute(args)
    except (ValueError, ArgumentError, MisconfigurationException) as error:
        sys.stderr.write(f"mmdiffusion: error: {clear_message(str(error), class_names())}\n")
        sys.exit(2)
    except Stopped as stop:
        if rank_zero_only.rank != 0:  # pyright: ignore[reportFunctionMemberAccess]
            return  # one process says so: launchers take a second for a crash, and kill the first
        sys.stderr.write(f"mmdiffusion: {stop}\n")
        sys.exit(EXIT_STATUS)
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        path = error.filename2 or error.filename
        if path is None:
            raise
        sys.stderr.write(f"mmdiffusion: error: {path} cannot be used: {error.strerror}; give another path\n")
        sys.exit(2)
    except (RuntimeError, OSError) as error:
        message = failure(str(error))
        if message is None:
            raise
        folder = split_path(sys.argv)[0] or "FOLDER"
        sys.stderr.write(f"mmdiffusion: error: {message}. `mmdiffusion fit --run {folder}` goes on\n")
        sys.exit(1)


def quieten() -> None:
    """Leave out what Lightning says that a user of this program can do nothing about."""
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    for handler in logging.getLogger("lightning.pytorch").handlers:
        handler.addFilter(lambda record: "Tip:" not in record.getMessage())
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # of blocks whose weights are gathered: what they return besides tokens is read, never written into
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")  # we take --run out of them


def class_names() -> list[str]:
    """Short names of the classes a configuration may name."""
    rooms = (
        mmdiffusion.methods,
        mmdiffusion.data,
        mmdiffusion.nn,
        mmdiffusion.codecs,
        mmdiffusion.diffusion,
        mmdiffusion.metrics,
        mmdiffusion.callbacks,
    )
    return [name for room in rooms for name in room.__all__ if inspect.isclass(getattr(room, name))]
