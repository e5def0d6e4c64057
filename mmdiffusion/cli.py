"""The command line: `mmdiffusion prepare | fit | validate | test | predict | export | report`, on LightningCLI."""

import inspect
import logging
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_info

import mmdiffusion.callbacks
import mmdiffusion.codecs
import mmdiffusion.data
import mmdiffusion.diffusion
import mmdiffusion.methods
import mmdiffusion.metrics
import mmdiffusion.nn
from mmdiffusion.callbacks.draws import check_draws
from mmdiffusion.callbacks.evaluate import Evaluate
from mmdiffusion.callbacks.progress import StepProgress
from mmdiffusion.callbacks.samples import LogSamples
from mmdiffusion.callbacks.start import StartFrom
from mmdiffusion.checkpoints import CHECKPOINT
from mmdiffusion.data.base import DataModule
from mmdiffusion.data.prepared import Prepared
from mmdiffusion.data.recipe import Cache
from mmdiffusion.export import export
from mmdiffusion.messages import clear_message
from mmdiffusion.methods.base import Method, check_precision
from mmdiffusion.prepare import prepare
from mmdiffusion.report import report
from mmdiffusion.runs import CONFIG, check_checkpoint, existing_run, new_run
from mmdiffusion.types import DataSpec

USAGE = """usage: mmdiffusion {prepare,fit,validate,test,predict,export,report} ...

  mmdiffusion prepare -c CONFIG --cache.folder FOLDER    encodes the data once; also statistics that metrics refer to
  mmdiffusion fit -c CONFIG [-c OVERLAY ...] [--run FOLDER] [--section.key VALUE ...]
  mmdiffusion test --run FOLDER          also validate and predict; --ckpt_path takes another checkpoint
  mmdiffusion export --run FOLDER [--to FOLDER]    averaged weights as safetensors, settings and a model card
  mmdiffusion report --run FOLDER [--to FILE]      one HTML page: samples, a film of them, figures, curves, settings
  mmdiffusion fit --help                 every setting
  mmdiffusion fit -c CONFIG --print_config

A run is one folder: config.yaml, checkpoints/, metrics.csv, metrics.json, samples/.
"""
COMMANDS = ("fit", "validate", "test", "predict")
"""Commands that have a trainer."""
HANDED_ON = {"export": export, "report": report}
"""Commands that make something of a finished run."""
OTHERS = ("prepare", *HANDED_ON)
"""Commands that have no trainer."""


class MMDiffusionCLI(LightningCLI):
    """LightningCLI in subclass mode, with one run in one folder.

    Args:
        run: Folder of the run.
        args: Arguments, the subcommand first.
        subcommand: `None` only builds the objects (notebooks, tests).
    """

    def __init__(self, run: Path, args: ArgsType, *, execute: bool = True) -> None:
        self.run_folder = run
        strict = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            Method,
            DataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
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
        """Refuse a checkpoint of another method before anything is built."""
        checkpoint = self._get(self.config, "ckpt_path")
        if checkpoint is not None:
            check_checkpoint(checkpoint, self._get(self.config, "model").class_path)

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
            "logger": [CSVLogger(save_dir=self.run_folder, name="", version=""), *others] if is_fit else False,
            "callbacks": [*shown, *listed(settings.callbacks)],
        }
        return super().instantiate_trainer(**kwargs, **own)


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
        config = first_config(rest)
        if not config and not {"-h", "--help"} & set(rest):
            raise ValueError("fit needs -c CONFIG: expected a configuration file, as in configs/")
        folder = new_run(run, config)
        sys.argv[1:] = [command, "--run", str(folder), *rest]  # processes that Lightning launches are given these
        MMDiffusionCLI(folder, [command, *rest])
        return
    if command in HANDED_ON and {"-h", "--help"} & set(rest):
        sys.stdout.write(USAGE)
        return
    if run is None:
        raise ValueError(f"{command} needs --run FOLDER: expected the folder of a finished run")
    if command in HANDED_ON:
        hand_on(command, run, rest)
        return
    folder = existing_run(run)
    given = ["--config", str(folder / CONFIG)]
    if not any(word.startswith("--ckpt_path") for word in rest):
        given += ["--ckpt_path", str(folder / CHECKPOINT)]
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
