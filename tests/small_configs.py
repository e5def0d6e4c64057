"""What tests of configurations at the papers' sizes share."""

import torch
import yaml

from mmdiffusion.callbacks import LogSamples
from tests.helpers import ROOT


def without_references(name, folder):
    """The configuration with distances to the evaluated split: statistics are what `prepare` computes, tested there."""
    config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    (evaluate,) = (one for one in config["trainer"]["callbacks"] if one["class_path"] == "Evaluate")
    for metric in evaluate["init_args"]["metrics"]:
        metric.get("init_args", {}).pop("reference", None)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def train(cli):
    """Train an experiment for its two steps, with two samples of each kind: losses are finite."""
    for callback in cli.trainer.callbacks:
        if isinstance(callback, LogSamples):
            callback.num_samples = 2
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert cli.trainer.global_step == 2
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
    assert torch.isfinite(cli.trainer.callback_metrics["val/loss"])
