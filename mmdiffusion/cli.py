"""The command line: `mmdiffusion prepare | fit | validate | test | predict`, on LightningCLI."""

import inspect
import logging
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

import mmdiffusion.callbacks
import mmdiffusion.codecs
import mmdiffusion.data
import mmdiffusion.diffusion
import mmdiffusion.methods
import mmdiffusion.metrics
import mmdiffusion.nn
from mmdiffusion.callbacks.bad_steps import SkipBadSteps
from mmdiffusion.callbacks.draws import check_draws
from mmdiffusion.callbacks.evaluate import Evaluate
from mmdiffusion.callbacks.progress import StepProgress
from mmdiffusion.callbacks.record import RunConfig, RunLogger
from mmdiffusion.callbacks.samples import LogSamples
from mmdiffusion.callbacks.signals import EXIT_STATUS, Stopped
from mmdiffusion.callbacks.start import StartFrom
from mmdiffusion.changes import check_changes
from mmdiffusion.checkpoints import CHECKPOINT, CONFIG, check_format
from mmdiffusion.data.base import DataModule
from mmdiffusion.data.prepared import Prepared
from mmdiffusion.data.recipe import Cache
from mmdiffusion.messages import clear_message, failure
from mmdiffusion.methods.base import Method, check_precision
from mmdiffusion.prepare import prepare
from mmdiffusion.runs import (
    begun_run,
    check_checkpoint,
    check_unfinished,
    checkpoint_to_go_on_from,
    existing_run,
    new_run,
)
from mmdiffusion.types import DataSpec

USAGE = """usage: mmdiffusion {prepare,fit,validate,test,predict} ...

  mmdiffusion prepare -c CONFIG --cache.folder FOLDER    encodes the data once; also statistics that metrics refer to
  mmdiffusion fit -c CONFIG [-c OVERLAY ...] [--run FOLDER] [--section.key VALUE ...]
  mmdiffusion fit --run FOLDER           goes on with a run that was stopped; so does the command that began it
  mmdiffusion test --run FOLDER          also validate and predict; --ckpt_path takes another checkpoint
  mmdiffusion fit --help                 every setting
  mmdiffusion fit -c CONFIG --print_config

A run is one folder: config.yaml, checkpoints/, metrics.csv, metrics.json, samples/.
"""
COMMANDS = ("fit", "validate", "test", "predict")
"""Commands that have a trainer; `prepare` has none."""


class MMDiffusionCLI(LightningCLI):
    """LightningCLI in subclass mode, with one run in one folder.

    Args:
        run: Folder of the run.
        args: Arguments, the subcommand first.
        execute: Run the subcommand; otherwise objects are built and no more (notebooks, tests).
        goes_on: The folder holds a run already, which this command goes on with.
    """

    def __init__(self, run: Path, args: ArgsType, *, execute: bool = True, goes_on: bool = False) -> None:
        self.run_folder, self.goes_on, self.first_step = run, goes_on, 0
        strict = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            Method,
            DataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=RunConfig,
            parser_kwargs=strict | dict.fromkeys(COMMANDS, strict),
            seed_everything_default=0,
            trainer_defaults={"enable_model_summary": False},
            run=execute,
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What the data is, told to the model; and one seed for weights, noise and the order of the data."""
        parser.add_class_arguments(Cache, "cache")
        parser.link_arguments(("data", "cache"), "model.init_args.spec", compute_fn=described, apply_on="instantiate")
        for target in ("model.init_args.seed", "data.init_args.seed"):
            parser.link_arguments("seed_everything", target, compute_fn=int)

    def before_instantiate_classes(self) -> None:
        """Refuse a checkpoint of another method, and a run that is finished or another, before anything is built."""
        checkpoint, trainer = self._get(self.config, "ckpt_path"), self._get(self.config, "trainer")
        if self.goes_on and rank_zero_only.rank == 0:  # pyright: ignore[reportFunctionMemberAccess]
            self._compare()
        if checkpoint is None:
            return
        contents = check_checkpoint(checkpoint, self._get(self.config, "model").class_path)
        if self.subcommand == "fit":
            check_format(contents, checkpoint)
        if self.goes_on:
            check_unfinished(self.run_folder, contents, trainer.max_steps, trainer.max_epochs)
            self.first_step = contents["global_step"]

    def _compare(self) -> None:
        before = yaml.safe_load((self.run_folder / CONFIG).read_text())
        assert self.subcommand is not None
        text = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False)
        for change in check_changes(str(self.run_folder), before, yaml.safe_load(text)):
            rank_zero_info(f"{self.run_folder} goes on with a change: {change}")

    def after_instantiate_classes(self) -> None:
        """Open a cache, and find, before anything is written, what callbacks and method would find later."""
        check_precision(self.trainer.precision)
        cache = self._get(self.config_init, "cache")
        if cache.folder is not None:
            self.datamodule = Prepared(self.datamodule, cache, self.model.encoders(), self.model.givable)
        for callback in self.trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, Evaluate):
                callback.check(self.model, self.datamodule)
            if isinstance(callback, LogSamples):
                check_draws(callback.draws, self.model)
            if isinstance(callback, StartFrom) and self.subcommand == "fit":
                callback.check(self.model)

    def _parse_ckpt_path(self) -> None:
        """Nothing: a run's own config built its model, Lightning would read it a second time from the checkpoint."""

    def after_fit(self) -> None:
        """Say where everything is, and what comes next."""
        rank_zero_info(f"run folder: {self.run_folder}; next: mmdiffusion test --run {self.run_folder}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer writes into the run's folder; `fit` starts its log there, beside any other logger.

        Raises:
            ValueError: if the configuration asks for another folder.
        """
        is_fit = self.subcommand == "fit"
        if not is_fit:
            self.save_config_callback = None
        settings = self._get(self.config_init, "trainer")
        if settings.default_root_dir is not None:
            raise ValueError(f"default_root_dir is {settings.default_root_dir}: expected none, --run names the folder")
        others = listed(None if isinstance(settings.logger, bool) else settings.logger)
        shown = [] if settings.enable_progress_bar is False else [StepProgress()]
        own = {
            "default_root_dir": self.run_folder,
            "logger": [RunLogger(self.run_folder, self.first_step), *others] if is_fit else False,
            "callbacks": [*shown, *guarded(listed(settings.callbacks))],
        }
        return super().instantiate_trainer(**kwargs, **own)


def guarded(callbacks: list[Any]) -> list[Any]:
    """Callbacks, with a guard against bad steps where none is configured."""
    has_guard = any(isinstance(callback, SkipBadSteps) for callback in callbacks)
    return callbacks if has_guard else [SkipBadSteps(), *callbacks]


def listed(setting: Any) -> list[Any]:
    """One object, several or none, as the trainer takes them: as a list."""
    if setting is None:
        return []
    return setting if isinstance(setting, list) else [setting]


class PrepareCLI(MMDiffusionCLI):
    """Builds data, method and metrics of a configuration, and no trainer; then prepares what they need.

    Args:
        args: Arguments.
    """

    def __init__(self, args: ArgsType) -> None:
        super().__init__(Path(), args, execute=False)

    def instantiate_classes(self) -> None:
        """Build all but the trainer, whose devices are none of this command's."""
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule, self.model = (self._get(self.config_init, part) for part in ("data", "model"))

    def after_instantiate_classes(self) -> None:
        """Prepare."""
        callbacks = listed(self._get(self.config_init, "trainer").callbacks)
        metrics = [m for callback in callbacks if isinstance(callback, Evaluate) for m in callback.metrics]
        prepare(self.datamodule, self.model, self._get(self.config_init, "cache"), metrics)


def described(data: DataModule, cache: Cache) -> DataSpec:
    """What the data are, with the features that a cache adds."""
    return cache.describe(data.spec)


def split_run(args: list[str]) -> tuple[str | None, list[str]]:
    """Take `--run FOLDER` (or `--run=FOLDER`) out of the arguments.

    Raises:
        ValueError: if the folder is missing.
    """
    run, rest, words = None, [], iter(args)
    for word in words:
        if word == "--run":
            run = next(words, None)
            if run is None:
                raise ValueError("--run is empty: expected a folder")
        elif word.startswith("--run="):
            run = word.removeprefix("--run=")
        else:
            rest.append(word)
    return run, rest


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
    run, rest = split_run(args)
    command, rest = (rest[0], rest[1:]) if rest else ("", [])
    if command not in ("prepare", *COMMANDS):
        known = ", ".join(("prepare", *COMMANDS))
        raise ValueError(f"the command is {command!r}: expected one of {known}, before any option")
    if command == "prepare":
        if run is not None:
            raise ValueError(f"--run is {run}: expected none, prepare has no run; --cache.folder names its folder")
        PrepareCLI(rest)
        return
    if command == "fit":
        fit(run, rest)
        return
    if run is None:
        raise ValueError(f"{command} needs --run FOLDER: expected the folder of a finished run")
    folder = existing_run(run)
    given = ["--config", str(folder / CONFIG)]
    if not any(word.startswith("--ckpt_path") for word in rest):
        given += ["--ckpt_path", str(folder / CHECKPOINT)]
    MMDiffusionCLI(folder, [command, *given, *rest])


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
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return
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
    except RuntimeError as error:
        message = failure(str(error))
        if message is None:
            raise
        folder = split_run(sys.argv)[0] or "FOLDER"
        sys.stderr.write(f"mmdiffusion: error: {message}. `mmdiffusion fit --run {folder}` goes on\n")
        sys.exit(1)


def quieten() -> None:
    """Leave out what Lightning says that a user of this program can do nothing about."""
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    for handler in logging.getLogger("lightning.pytorch").handlers:
        handler.addFilter(lambda record: "Tip:" not in record.getMessage())
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
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
