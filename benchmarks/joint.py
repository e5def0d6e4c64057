"""What aggregation and heads cost a training step of MT-Diffusion, beside plain diffusion on the same denoiser.

    python -m benchmarks.joint [--rounds 25] [--threads 2] [--batch 128]

The network of configs/mt_diffusion/digits.yaml, bfloat16, forward and backward. Variants take turns in one process; the
ratio is the median over rounds of (variant / plain diffusion), with the quartiles. Bytes are all that a step's
operations write, as the profiler counts them.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.turns import seconds_in_turns
from mmdiffusion.data import Digits
from mmdiffusion.diffusion import CosineSchedule, NoDrift, OneshotDrift, SaturatingDrift
from mmdiffusion.masks import PatchMask
from mmdiffusion.methods import MTDiffusion
from mmdiffusion.methods.extras import Extra
from mmdiffusion.nn import (
    Denoiser,
    IdentityEncoder,
    Level,
    MiddleHead,
    NoEncoder,
    OwnChannels,
    OwnHead,
    OwnToken,
    TableEncoder,
    TokensHead,
)
from mmdiffusion.types import Batch

DRIFT, ONESHOT = SaturatingDrift(1.0, 0.05), OneshotDrift(1.0)
EXTRAS: dict[str, dict[str, Extra]] = {
    "plain diffusion": {},
    "label told, no head trained": {"label": Extra(NoEncoder, MiddleHead, NoDrift(), weight=0.0)},
    "label told and aggregated, no head trained": {"label": Extra(TableEncoder, MiddleHead, DRIFT, weight=0.0)},
    "label, head M": {"label": Extra(TableEncoder, MiddleHead, DRIFT)},
    "masked image, head on tokens": {"masked": Extra(IdentityEncoder, TokensHead, DRIFT, mask=PatchMask(2, 16))},
    "maps in own channels": {"feature_map": Extra(OwnChannels, OwnHead, ONESHOT)},
    "vector as own token": {"feature": Extra(OwnToken, OwnHead, ONESHOT)},
}


def variants(data: Digits, batch_size: int) -> dict[str, Callable[[], None]]:
    """A training step's passes, by name of the variant; plain diffusion first.

    Args:
        data: Digits with all entries on demand.
        batch_size: Samples.
    """
    batch: Batch = data.rows("train", range(batch_size))

    def step(method: MTDiffusion) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = method.losses(batch, torch.Generator().manual_seed(0))["loss"]
        loss.backward()
        method.zero_grad(set_to_none=True)

    denoiser = partial(Denoiser, levels=[Level(128, 6, 4)], positions="learned")
    made = {}
    for name, extras in EXTRAS.items():
        method = MTDiffusion(data.spec, denoiser, CosineSchedule(1000), extras, patch_size=2)
        made[name] = partial(step, method)
    return made


def bytes_written(step: Callable[[], None]) -> int:
    """Bytes that the operations of a step allocate."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    return sum(max(0, event.self_cpu_memory_usage) for event in profiler.events() or ())


def main() -> None:
    """Time all variants in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    runs = variants(Digits(mask_share=0.25, num_features=16, num_maps=4), arguments.batch)
    seconds = seconds_in_turns(runs, arguments.rounds)
    written = {name: bytes_written(run) for name, run in runs.items()}
    table = Table("variant", "median, ms", "ratio", "quartiles", "bytes, ratio")
    first, least = next(iter(seconds.values())), next(iter(written.values()))
    for name, times in seconds.items():
        ratios = [one / other for one, other in zip(times, first, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        cells = (f"{1e3 * statistics.median(times):.0f}", f"{middle:.3f}", f"{low:.3f}-{high:.3f}")
        table.add_row(name, *cells, f"{written[name] / least:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
