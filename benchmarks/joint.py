"""What aggregation and heads cost a training step of MT-Diffusion, beside plain diffusion on the same denoiser.

    python -m benchmarks.joint [--rounds 25] [--threads 2] [--batch 128]

The network of configs/mt_diffusion/digits.yaml, bfloat16, forward and backward. Variants take turns in one process; the
ratio is the median over rounds of (variant / plain diffusion), with the quartiles. Memory is what the forward pass
keeps for the way back, weights included.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

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
    OutputHead,
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
    "label, head E": {"label": Extra(TableEncoder, OutputHead, DRIFT)},
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
        prediction = "clean" if name == "label, head E" else "velocity"  # that head needs an estimate of the image
        method = MTDiffusion(data.spec, denoiser, CosineSchedule(1000), extras, patch_size=2, prediction=prediction)
        made[name] = partial(step, method)
    return made


def bytes_kept(step: Callable[[], None]) -> int:
    """Bytes of the tensors that the forward pass keeps for the backward pass, each storage once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(kept.values())


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
    kept = {name: bytes_kept(run) for name, run in runs.items()}
    table = Table("variant", "median, ms", "ratio", "quartiles", "memory, ratio")
    first, least = next(iter(seconds.values())), next(iter(kept.values()))
    for name, times in seconds.items():
        ratios = [one / other for one, other in zip(times, first, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        cells = (f"{1e3 * statistics.median(times):.0f}", f"{middle:.3f}", f"{low:.3f}-{high:.3f}")
        table.add_row(name, *cells, f"{kept[name] / least:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
