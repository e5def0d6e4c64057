"""Statistics of references: computed once, stored with their protocol, and refused where that differs."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeGuard

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from mmdiffusion.callbacks.progress import StepProgress
from mmdiffusion.data.base import DataModule
from mmdiffusion.data.encoding import Processes, pieces, read
from mmdiffusion.data.probe import alike, probe, varying
from mmdiffusion.data.shard_folder import ShardFolder, check_plan
from mmdiffusion.data.shards import Shard, write_whole
from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.metrics.frechet import FrechetDistance
from mmdiffusion.metrics.reference import Reference, pack_statistics, read_protocol, read_statistics

_PART_ROWS = 8192
"""Rows whose sums are stored together: what an interruption loses at most."""


def has_reference(metric: SampleMetric) -> TypeGuard[FrechetDistance]:
    """Whether a metric compares with stored statistics."""
    return isinstance(metric, FrechetDistance) and metric.reference is not None


def protocol_of(metric: FrechetDistance, data: DataModule) -> dict[str, Any]:
    """What statistics must have been computed from, and how.

    Args:
        metric: Its extractor has learned what it learns.
        data: The data.
    """
    reference, size = _reference(metric), data.source.num_rows(_reference(metric).split)
    return {
        "extractor": metric.extractor.signature(),
        "data": type(data.source).__name__,
        "image": asdict(data.spec["image"]),
        "split": reference.split,
        "split rows": size,
        "references": size if reference.num_rows is None else reference.num_rows,
    }


def check_statistics(metric: FrechetDistance, data: DataModule, *, is_fitted: bool) -> None:
    """Check that statistics are there, and of the protocol that a metric asks for.

    Args:
        metric: Has a reference.
        data: The data.
        is_fitted: Whether the extractor has learned what it learns; if not, it is not compared.

    Raises:
        ValueError: naming what differs.
    """
    reference = _reference(metric)
    found, expected = read_protocol(reference.path), protocol_of(metric, data)
    if not is_fitted and metric.fit_inputs:
        expected["extractor"] = found["extractor"]
    check_plan(Path(reference.path), expected, found)
    if "image" in varying(data.source, reference.split):
        return  # nothing to compare with: the training at hand draws crops or flips, the statistics have none
    now = probe(data.source, reference.split)["image"]
    if not alike(read_statistics(reference.path)["probe"], now):
        raise ValueError(
            f"reference.path is {reference.path}: its statistics are of other images than {reference.split} of "
            f"{type(data.source).__name__} holds; expected the same files, cropped and resized in the same way; "
            "compute them anew with `mmdiffusion prepare`, into another file"
        )


def read_into(metric: FrechetDistance, data: DataModule, *, is_first: bool) -> None:
    """Give a metric its stored statistics.

    Args:
        metric: Has a reference; its extractor has learned what it learns.
        data: The data.
        is_first: Whether this is the first process: the sums of all processes are added up.

    Raises:
        ValueError: if the statistics have another protocol.
    """
    check_statistics(metric, data, is_fitted=True)
    if is_first:
        stored = read_statistics(_reference(metric).path)
        metric.add_references(stored["count"], stored["sum"], stored["outer"])


def compute_statistics(metric: FrechetDistance, data: DataModule, processes: Processes, bar: StepProgress) -> None:
    """Compute this process's share of the statistics, and join all shares once they are there.

    Args:
        metric: Has a reference; its extractor has learned what it learns.
        data: The data.
        processes: Who does the work.
        bar: Shows progress.

    Raises:
        ValueError: if statistics of another protocol are there, or images are cropped or flipped at random.
    """
    reference, protocol = _reference(metric), protocol_of(metric, data)
    path = Path(reference.path)
    if path.exists():
        check_statistics(metric, data, is_fitted=True)
        rank_zero_info(f"{path}: is there, of this protocol")
        return
    if "image" in varying(data, reference.split):
        raise ValueError(
            f"the {reference.split} split draws image at random: expected references that are the same at every "
            "reading; switch random crops and flips off with --data.init_args"
        )
    metric.to(processes.device)
    rows = pieces(range(protocol["references"]), _PART_ROWS)
    parts = ShardFolder(path.with_name(path.name + ".parts"), protocol, len(rows))
    parts.begin()
    own, chosen = processes.share(len(rows)), reference.rows(data.num_rows(reference.split))
    missing = parts.missing(own)
    with bar.counting(f"references {path.name}, rows", sum(len(rows[number]) for number in own)) as advance:
        advance(sum(len(rows[number]) for number in own if number not in missing))
        for number in missing:
            metric.reset()
            batches = [[chosen[row] for row in piece] for piece in pieces(rows[number], data.eval_batch_size)]
            for _, batch in read(data, reference.split, batches, processes.device):
                image = batch["image"]
                assert isinstance(image, Tensor)
                metric.update(image, real=True)
                advance(len(image))
            sums = {"count": metric.real_count, "sum": metric.real_sum, "outer": metric.real_outer}
            parts.write(number, {name: value[None] for name, value in sums.items()})
    metric.reset()
    if parts.finish():
        _join(parts, reference, protocol, data)


def _join(parts: ShardFolder, reference: Reference, protocol: dict[str, Any], data: DataModule) -> None:
    """Add the parts up, always in the same order, and remove them."""
    path, sums = Path(reference.path), dict[str, Tensor]()
    try:
        for number in range(parts.num_shards):
            part = Shard(parts.file(number)).take(torch.tensor([0]))
            sums = {name: sums.get(name, 0) + value[0] for name, value in part.items()}  # pyright: ignore
    except ValueError:
        if path.exists():  # another process was first, and is removing the parts
            return
        raise
    sums["probe"] = probe(data, reference.split)["image"]  # pyright: ignore[reportArgumentType]
    write_whole(path, pack_statistics(sums, protocol))
    shutil.rmtree(parts.path, ignore_errors=True)
    rank_zero_info(f"{path}: statistics of {protocol['references']} images")


def _reference(metric: FrechetDistance) -> Reference:
    assert metric.reference is not None
    return metric.reference
