"""An experiment as a configuration says, on LightningCLI: built, checked, run; what runs it is `cli`."""

from pathlib import Path
from typing import Any

import yaml
from lightning import Callback, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from mmdiffusion.allocation import keep_freed_memory
from mmdiffusion.callbacks.bad_steps import SkipBadSteps
from mmdiffusion.callbacks.checked import CheckedCallback
from mmdiffusion.callbacks.ema import EMA
from mmdiffusion.callbacks.evaluate import Evaluate
from mmdiffusion.callbacks.progress import StepProgress
from mmdiffusion.callbacks.record import RunConfig, RunLogger
from mmdiffusion.callbacks.start import StartFrom
from mmdiffusion.changes import check_changes
from mmdiffusion.data.base import DataModule
from mmdiffusion.data.prepared import Prepared
from mmdiffusion.data.recipe import Cache
from mmdiffusion.methods.base import Method, check_precision
from mmdiffusion.prepare import prepare
from mmdiffusion.resuming import check_format
from mmdiffusion.runs import (
    check_checkpoint,
    check_unfinished,
    listed,
    settings_of,
)
from mmdiffusion.types import DataSpec

COMMANDS = ("fit", "validate", "test", "predict")
"""Commands that have a trainer."""


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
        self.is_resumed = self.is_averaged = False
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
        if self.goes_on:
            self._compare()  # in each process: one that was refused alone would leave the others waiting
        if checkpoint is None:
            return
        contents = check_checkpoint(checkpoint, self._get(self.config, "model").class_path)
        if self.subcommand == "fit":
            check_format(contents, checkpoint)
            self.is_resumed, self.is_averaged = True, "ema" in contents
        if self.goes_on:
            check_unfinished(self.run_folder, contents, trainer.max_steps, trainer.max_epochs)
            self.first_step = contents["global_step"]

    def _compare(self) -> None:
        before = settings_of(self.run_folder)
        assert self.subcommand is not None
        text = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False)
        for change in check_changes(str(self.run_folder), before, yaml.safe_load(text)):
            rank_zero_info(f"{self.run_folder} goes on with a change: {change}")

    def after_instantiate_classes(self) -> None:
        """Open a cache, and find, before anything is written, what callbacks and method would find later."""
        check_precision(self.trainer.precision)
        if self.trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        callbacks: list[Callback] = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        if self.is_averaged and not any(isinstance(callback, EMA) for callback in callbacks):
            raise ValueError(
                f"callbacks has no EMA, and the training that --run {self.run_folder} goes on with has averaged its "
                "weights: expected EMA, which puts those that train back in place; StartFrom starts a new training"
            )
        cache = self._get(self.config_init, "cache")
        if cache.folder is not None:
            self.datamodule = Prepared(self.datamodule, cache, self.model.encoders(), self.model.givable)
        if self.is_resumed:
            # What it would put in place is replaced at once.
            callbacks[:] = [one for one in callbacks if not isinstance(one, StartFrom)]
        for callback in callbacks:
            if isinstance(callback, CheckedCallback) and callback.is_checked_in(self.subcommand):
                callback.check(self.trainer, self.model, self.datamodule)

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
