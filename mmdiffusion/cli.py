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
from mmdiffusion.checkpoints import CONFIG
from mmdiffusion.experiment import COMMANDS, MMDiffusionCLI, PrepareCLI
from mmdiffusion.export import export
from mmdiffusion.messages import clear_message, failure
from mmdiffusion.report import report
from mmdiffusion.runs import (
    begun_run,
    checkpoint_to_go_on_from,
    existing_run,
    new_run,
)
from mmdiffusion.signals import EXIT_STATUS, Stopped
from mmdiffusion.usage import USAGE

HANDED_ON = {"export": export, "report": report}
"""Commands that make something of a finished run."""
OTHERS = ("prepare", *HANDED_ON)
"""Commands that have no trainer."""


def split_folder(args: list[str], option: str = "--run") -> tuple[str | None, list[str]]:
    """Take `--run FOLDER` (or `--run=FOLDER`) out of the arguments.

    Args:
        args: The arguments.
        option: Which option names the folder.

    Raises:
        ValueError: if the folder is missing.
    """
    folder, rest, words = None, [], iter(args)
    for word in words:
        if word == option:
            folder = next(words, None)
            if folder is None:
                raise ValueError(f"{option} is empty: expected a folder")
        elif word.startswith(f"{option}="):
            folder = word.removeprefix(f"{option}=")
        else:
            rest.append(word)
    return folder, rest


def first_config(args: list[str]) -> str | None:
    """Path of the first configuration file among the arguments."""
    for word, following in pairwise([*args, ""]):
        if word in ("-c", "--config"):
            return following
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return None


def execute(args: list[str]) -> None:
    """Run one command.

    Args:
        args: Arguments as typed.

    Raises:
        ValueError: for a mistake in them.
    """
    run, rest = split_folder(args)
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
    folder, checkpoint = existing_run(run)
    given = ["--config", str(folder / CONFIG)]
    if not any(word.startswith("--ckpt_path") for word in rest):
        given += ["--ckpt_path", str(checkpoint)]
    MMDiffusionCLI(folder, [command, *given, *rest])


def hand_on(command: str, run: str, args: list[str]) -> None:
    """Run a command that makes something of a finished run, and trains and measures nothing.

    Args:
        command: One of `HANDED_ON`.
        run: The run.
        args: Arguments beside it.

    Raises:
        ValueError: for a mistake in them.
    """
    to, rest = split_folder(args, "--to")
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
    if begun and not any(word.startswith("--ckpt_path") for word in rest):
        checkpoint = checkpoint_to_go_on_from(begun)
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
    except (RuntimeError, OSError) as error:
        message = failure(str(error))
        if message is None:
            raise
        folder = split_folder(sys.argv)[0] or "FOLDER"
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
