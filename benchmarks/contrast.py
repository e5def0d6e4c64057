"""What CDCD's negatives cost, at the size of the CUB experiment of its paper: steps with and without, side by side.

    python -m benchmarks.contrast [--rounds 5] [--threads 2] [--precision float32]

18 blocks of width 192, 16 heads, 32 x 32 tokens of 2,887 codes, 77 context tokens of width 512, batch 2, T = 80. The
variants take turns in one process; ratios are medians over rounds. "Written" counts the bytes of every tensor that an
operator makes in one step, views left out: exact, and free of noise.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmdiffusion.codecs import TokenCodec
from mmdiffusion.diffusion import Ancestral, MaskReplaceDiffusion, ReleasedSchedule
from mmdiffusion.diffusion.categorical import truncate
from mmdiffusion.methods import CDCD, Contrast, IntraNegatives
from mmdiffusion.nn import Denoiser, Level
from mmdiffusion.nn.conditioners import Conditioner
from mmdiffusion.types import Batch, Condition, DataSpec, TokenSpec

BATCH, CODES, GRID, CONTEXT = 2, 2887, (32, 32), (77, 512)


class Tokens(TokenCodec):
    """Tokens that are there already."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(TokenSpec(CODES, GRID), "tokens")

    def encode(self, data: Tensor) -> Tensor:
        """The tokens."""
        return data

    def decode(self, tokens: Tensor) -> Tensor:
        """The tokens."""
        return tokens


class Random(Conditioner):
    """A fixed context for everything."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__((), None, CONTEXT[1])
        self.register_buffer("context", torch.randn(CONTEXT))

    def forward(self, known: Batch, is_dropped: Bool[Tensor, " b"] | None = None) -> Condition:
        """The context."""
        return self.null(len(known["tokens"]))

    def null(self, batch_size: int) -> Condition:
        """The context."""
        return Condition(tokens=self.get_buffer("context").expand(batch_size, -1, -1))


class Written(TorchDispatchMode):
    """Counts the bytes that operators write."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operator and count what it made."""
        out = func(*args, **(kwargs or {}))
        inputs = {x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)}
        for made in out if isinstance(out, tuple | list) else (out,):
            if isinstance(made, Tensor) and made.untyped_storage().data_ptr() not in inputs:
                self.total += made.numel() * made.element_size()
        return out


def training_step(contrasts: list[Contrast], precision: torch.dtype, **settings: Any) -> Callable[[], None]:
    """One training step on fixed random tokens, as a function to call.

    Args:
        contrasts: Contrastive terms.
        precision: bfloat16 is that of autocast.
        settings: Further ones of the denoiser.
    """
    torch.manual_seed(0)
    denoiser = partial(Denoiser, levels=[Level(192, 18, 16)], positions="learned", **settings)
    schedule = ReleasedSchedule(80)
    spec: DataSpec = {"tokens": TokenSpec(CODES, GRID)}
    method = CDCD(spec, Tokens, Random, denoiser, schedule, Ancestral(), contrasts, drop_share=0.0, token_width=192)
    optimizer = torch.optim.AdamW(method.parameters(), fused=True)
    batch: Batch = {"tokens": torch.randint(CODES, (BATCH, *GRID)), "index": torch.arange(BATCH)}
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != torch.float32):
            loss = method.losses(batch, generator)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure_steps(rounds: int, precision: torch.dtype) -> Table:
    """Time and bytes of a step by number of contrasts."""
    step_wise = Contrast(IntraNegatives(10), flavour="step")
    sample_wise = Contrast(IntraNegatives(10), flavour="sample")
    variants = {"none": [], "10 negatives, step": [step_wise], "10 negatives, sample": [sample_wise]}
    steps = {name: training_step(contrasts, precision) for name, contrasts in variants.items()}
    written = {}
    for name, step in steps.items():
        step()
        with Written() as count:
            step()
        written[name] = count.total
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    table = Table("negatives", "median, s", "range, s", "time ratio", "written, GB", "written ratio")
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, times["none"], strict=True))
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        share = written[name] / written["none"]
        figures = (
            f"{statistics.median(seconds):.2f}",
            spread,
            f"{ratio:.3f}",
            f"{written[name] / 1e9:.2f}",
            f"{share:.4f}",
        )
        table.add_row(name, *figures)
    return table


def measure_sampling(rounds: int) -> str:
    """Truncation, posterior and draw of one sampling call, batch 1."""
    diffusion = MaskReplaceDiffusion(ReleasedSchedule(80), CODES)
    generator = torch.Generator().manual_seed(0)
    length = GRID[0] * GRID[1]
    log_probs = torch.randn(1, length, CODES, generator=generator).mul(3).log_softmax(-1)
    noise = torch.rand(1, 3, length, generator=generator)
    noisy = diffusion.corrupt(torch.randint(CODES, (1, length)), torch.tensor([40]), noise[:, :2])
    seconds = []
    for _ in range(4 * rounds):
        start = time.perf_counter()
        Ancestral()(diffusion, truncate(log_probs, 0.86), noisy, torch.tensor([40]), torch.tensor([39]), noise)
        seconds.append(time.perf_counter() - start)
    spread = f"{1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f}"
    return f"truncation, posterior and draw, batch 1: median {1e3 * statistics.median(seconds):.1f} ms ({spread})"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(width=110)
    console.print(measure_steps(arguments.rounds, getattr(torch, arguments.precision)))
    console.print(measure_sampling(arguments.rounds))


if __name__ == "__main__":
    main()
