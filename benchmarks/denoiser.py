"""Training step of the digits denoiser: precision, attention kernel, optimizer and compilation, side by side.

    python -m benchmarks.denoiser [--rounds 15] [--threads 2] [--compile]

Variants take turns in one process; the ratio is the median over rounds of (variant / first variant).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.nn import Denoiser, Level
from mmdiffusion.types import Condition

BATCH, GRID, CHANNELS, VECTOR = 128, (4, 4), 4, 64


@dataclass
class Variant:
    """One way to train.

    Attributes:
        name: Row of the table.
        precision: Precision of matrix products.
        attend: Attention kernel; `None` is the package's own choice.
        fused: One fused optimizer kernel for all parameters.
        compiled: Compile the denoiser in place.
    """

    name: str
    precision: torch.dtype = torch.bfloat16
    attend: Callable[..., Tensor] | None = None
    fused: bool = True
    compiled: bool = False


def fused_attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """PyTorch's fused attention, heads side by side in the result."""
    queries, keys, values = (x.transpose(1, 2) for x in (queries, keys, values))
    allowed = None if mask is None else mask[:, None, None]
    return F.scaled_dot_product_attention(queries, keys, values, allowed).transpose(1, 2).flatten(2)


def plain_attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention in plain products, heads side by side in the result."""
    queries, keys, values = (x.transpose(1, 2) for x in (queries, keys, values))
    scores = queries @ keys.mT * queries.shape[-1] ** -0.5
    scores = scores if mask is None else scores.masked_fill(~mask[:, None, None], -torch.inf)
    return (scores.softmax(-1).to(values.dtype) @ values).transpose(1, 2).flatten(2)


def training_step(variant: Variant) -> Callable[[], None]:
    """One training step on fixed random data, as a function to call."""
    torch.manual_seed(0)
    denoiser = Denoiser(GRID, CHANNELS, CHANNELS, VECTOR, None, None, [Level(128, 6, 4)], positions="learned")
    if variant.compiled:
        denoiser.compile()
    optimizer = torch.optim.AdamW(denoiser.parameters(), fused=variant.fused)
    tokens, time_ = torch.randn(BATCH, *GRID, CHANNELS), torch.rand(BATCH)
    condition = Condition(vector=torch.randn(BATCH, VECTOR))

    def step() -> None:
        patch: AbstractContextManager = nullcontext()
        if variant.attend is not None:
            patch = mock.patch("mmdiffusion.nn.attention.attend", variant.attend)
        enabled = variant.precision != torch.float32
        with patch:
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                prediction = denoiser(tokens, time_, condition).prediction
            (prediction.float() - tokens).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def timed(step: Callable[[], None]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    """Time the variants in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="counted rounds, after 3 for warming up")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile (needs a C++ compiler)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    variants = [
        Variant("bfloat16, plain attention (default)"),
        Variant("float32, plain attention", precision=torch.float32, attend=plain_attend),
        Variant("float32, fused attention (default)", precision=torch.float32),
        Variant("bfloat16, fused attention", attend=fused_attend),
        Variant("bfloat16, plain attention, unfused AdamW", fused=False),
    ]
    if options.compile:
        variants.append(Variant("bfloat16, plain attention, compiled", compiled=True))
    steps = [training_step(variant) for variant in variants]
    first = [timed(step) for step in steps]
    for _ in range(2):
        for step in steps:
            step()
    seconds = [[timed(step) for step in steps] for _ in range(options.rounds)]
    table = Table("variant", "first call, s", "median, ms", "min to max, ms", "ratio to the first row")
    for i, variant in enumerate(variants):
        column = [row[i] for row in seconds]
        ratio = statistics.median(row[i] / row[0] for row in seconds)
        spread = f"{min(column) * 1e3:.0f} to {max(column) * 1e3:.0f}"
        table.add_row(variant.name, f"{first[i]:.1f}", f"{statistics.median(column) * 1e3:.0f}", spread, f"{ratio:.2f}")
    Console().print(f"training step, batch {BATCH}, {options.threads} threads, {options.rounds} rounds", table)


if __name__ == "__main__":
    main()
