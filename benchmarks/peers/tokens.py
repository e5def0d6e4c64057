"""Training step at the CUB size of CDCD, with ten negatives, beside diffusers' transformer of the same size without.

18 blocks of width 192, 16 heads, 1,024 tokens of 2,887 codes, 77 context tokens of width 512, batch 2. The peer is the
transformer of its VQ-Diffusion, whose package has no loss: it is given the cross-entropy alone, less than ours does.
"""

import subprocess
import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contrast import BATCH, CODES, CONTEXT, GRID
from benchmarks.contrast import training_step as contrastive_step
from benchmarks.peers.steps import PRECISIONS, Step, count_flops, described, peak_memory, training_step
from benchmarks.peers.table import Row, ratios
from benchmarks.turns import seconds_in_turns
from mmdiffusion.allocation import keep_freed_memory
from mmdiffusion.methods import Contrast, IntraNegatives

NEEDS = ("diffusers",)
NUM_STEPS = 80
LEAST_RATES = {"float32": 100.0, "bfloat16": 200.0}
NUM_WARM_STEPS = 2
"""Steps before memory is read: the first makes the optimizer's averages, the second lives beside them."""


def ours(precision: torch.dtype, **settings: Any) -> Step:
    """Our step, the contrastive term over ten negatives included; further settings are the denoiser's."""
    return contrastive_step([Contrast(IntraNegatives(10), flavour="step")], precision, **settings)


def diffusers(precision: torch.dtype) -> Step:
    """The step of diffusers' transformer, in VQ-Diffusion's mode and with as wide a feed-forward network as ours."""
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    torch.manual_seed(0)
    model = Transformer2DModel(
        num_attention_heads=16,
        attention_head_dim=12,
        num_layers=18,
        cross_attention_dim=CONTEXT[1],
        attention_bias=True,
        sample_size=GRID[0],
        num_vector_embeds=CODES + 1,
        activation_fn="gelu",
        num_embeds_ada_norm=NUM_STEPS,
        norm_type="ada_norm",
    )
    length = GRID[0] * GRID[1]
    clean, noisy = torch.randint(CODES, (BATCH, length)), torch.randint(CODES + 1, (BATCH, length))
    time, context = torch.tensor(NUM_STEPS // 2), torch.randn(BATCH, *CONTEXT)  # it takes one time for all samples

    def loss() -> Tensor:
        return nn.functional.nll_loss(model(noisy, context, time).sample, clean)

    return training_step(model, loss, precision)


BUILDERS = {"ours": ours, "selective": partial(ours, gradient_checkpointing="selective"), "diffusers": diffusers}
OURS = {"ours": "", "selective": ", selective checkpointing"}
"""What our settings are called in the table."""


def peak(who: str, precision: str) -> None:
    """Print the peak memory of this process, in bytes, after some steps.

    Args:
        who: Whose step.
        precision: Its precision.
    """
    keep_freed_memory()
    step = BUILDERS[who](PRECISIONS[precision])
    before = peak_memory()
    for _ in range(NUM_WARM_STEPS):
        step()
    sys.stdout.write(f"{before} {peak_memory()}\n")


def peak_of_process(who: str, precision: str) -> tuple[int, int]:
    """Peak memory of a process of its own, in bytes: before the first step, and altogether.

    Args:
        who: Whose step.
        precision: Its precision.
    """
    call = f"import torch; torch.set_num_threads({torch.get_num_threads()})\n"
    call += f"from benchmarks.peers.tokens import peak; peak({who!r}, {precision!r})"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True)
    before, after = (int(word) for word in done.stdout.split()[-2:])
    return before, after


def measure(rounds: int) -> list[Row]:
    """Rows of the table.

    Args:
        rounds: Rounds that count.
    """
    return [row for precision in PRECISIONS for row in (*speed(precision, rounds), *memory(precision))]


def speed(precision: str, rounds: int) -> list[Row]:
    """Rows about time; each of our settings takes turns with the peer alone.

    Args:
        precision: Of the steps.
        rounds: Rounds that count.
    """
    bar, rows = f"training step, CUB size, {precision}", []
    for who, setting in OURS.items():
        pair = {name: BUILDERS[name] for name in (who, "diffusers")}
        seconds = seconds_in_turns({name: build(PRECISIONS[precision]) for name, build in pair.items()}, rounds)
        flops = {name: count_flops(build(torch.float32)) for name, build in pair.items()}
        told = [described(seconds[name], flops[name]) for name in pair]
        if not setting:
            rates = [flops[who] / second / 1e9 for second in seconds[who]]
            rows.append(Row(f"{bar}: GFLOP/s", LEAST_RATES[precision], True, rates, told[0], form="{:.0f}"))
        found = ratios(seconds["diffusers"], seconds[who])
        rows.append(Row(f"{bar}{setting}: speed over diffusers", 1.2, True, found, *told))
    return rows


def memory(precision: str) -> list[Row]:
    """Rows about memory.

    Args:
        precision: Of the steps.
    """
    peaks = {who: peak_of_process(who, precision) for who in BUILDERS}
    told = {
        who: f"{after / 1e9:.2f} GB, {before / 1e9:.2f} before the first step" for who, (before, after) in peaks.items()
    }
    bar, peer = f"training step, CUB size, {precision}", peaks["diffusers"][1]
    return [
        Row(
            f"{bar}{setting}: peak memory over diffusers'",
            0.8,
            False,
            [peaks[who][1] / peer],
            told[who],
            told["diffusers"],
        )
        for who, setting in OURS.items()
    ]
