"""Training steps that differ in the model alone: the same data, precision and optimizer for everybody."""

import resource
import statistics
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mmdiffusion.nn.blockwise  # noqa: F401 - registers its kernel

Step = Callable[[], None]
RECOMPUTING = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward,
    torch.ops.mmdiffusion.blockwise_attention_backward,
)
"""Backward passes of attention, which make the scores a second time."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def training_step(model: nn.Module, loss: Callable[[], Tensor], precision: torch.dtype) -> Step:
    """Forward pass, backward pass and fused AdamW, as a function to call.

    Args:
        model: What trains.
        loss: Its loss on data that stay the same.
        precision: bfloat16 is that of autocast.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != torch.float32):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def count_flops(step: Step) -> int:
    """Operations of a step in float32: products, convolutions and attention, 2 per multiply-add.

    What fused attention computes a second time on its way back, one product of five, is no work that is asked for.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    again = sum(counter.get_flop_counts()["Global"].get(kernel, 0) for kernel in RECOMPUTING)
    return counter.get_total_flops() - again // 5


def described(seconds: Sequence[float], flops: int) -> str:
    """Median time of a step, its operations and their rate, in words."""
    median = statistics.median(seconds)
    return f"{median:.2f} s, {flops / 1e9:.0f} GFLOP, {flops / median / 1e9:.0f} GFLOP/s"


def peak_memory() -> int:
    """Most bytes that this process has held in memory at once.

    Linux counts what a process held before it became this program as well, but in `VmHWM`.
    """
    if sys.platform == "linux":
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
