"""`mmdiffusion prepare`: what is computed once before a training and a test, by any number of processes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_info

from mmdiffusion.callbacks.evaluate import fit
from mmdiffusion.callbacks.progress import StepProgress
from mmdiffusion.callbacks.references import compute_statistics, has_reference
from mmdiffusion.data.base import DataModule
from mmdiffusion.data.encoding import Processes, encode_split, num_stored, shares
from mmdiffusion.data.prepared import SPLITS
from mmdiffusion.data.recipe import Cache
from mmdiffusion.methods.base import Method
from mmdiffusion.metrics.base import SampleMetric


def processes() -> Processes:
    """This process among those that torchrun or srun started, and its accelerator; alone where nobody did."""
    kinds = (TorchElasticEnvironment, SLURMEnvironment)
    found = next((kind() for kind in kinds if kind.detect()), LightningEnvironment())
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", found.local_rank() % torch.cuda.device_count())
    return Processes(found.global_rank(), found.world_size(), device)


def prepare(data: DataModule, method: Method, cache: Cache, metrics: Sequence[SampleMetric]) -> None:
    """Encode the splits of a data set, and compute the statistics that metrics compare with.

    Args:
        data: The data.
        method: Its frozen networks encode.
        cache: Where encoded splits go.
        metrics: Those with a `reference` are compared with statistics.

    Raises:
        ValueError: if there is nothing to prepare, or what is there was prepared otherwise.
    """
    compared = [metric for metric in metrics if has_reference(metric)]
    if cache.folder is None and not compared:
        raise ValueError(
            "there is nothing to prepare: expected --cache.folder FOLDER, for batches that are encoded once, or a "
            "metric with a reference, for statistics that are computed once"
        )
    this, bar = processes(), StepProgress()
    if this.rank > 0:
        bar.disable()
    if cache.folder is not None:
        encode(data, method, cache, this, bar)
    for metric in compared:
        metric.describe(data.spec)
        fit(metric, data)
        compute_statistics(metric, data, this, bar)


def encode(data: DataModule, method: Method, cache: Cache, this: Processes, bar: StepProgress) -> None:
    """Encode this process's share of all splits; see `prepare`."""
    cache.describe(data.spec)
    recipe, folder = cache.recipe(method.encoders(), method.givable), Path(str(cache.folder))
    for split in SPLITS:
        total = sum(map(len, shares(data, split, cache, this).values()))
        with bar.counting(f"encoding {split}, rows", total) as advance:
            is_complete = encode_split(data, split, cache, recipe, this, advance)
        size = sum(file.stat().st_size for file in (folder / split).iterdir())
        state = "complete" if is_complete else "this process is done, others are not"
        rank_zero_info(f"{folder / split}: {num_stored(data, split, cache)} rows, {size / 1e6:.1f} MB, {state}")
