"""What sampling costs outside the network: a network whose answer is ready, called through the whole sampler.

Everything counts that is not the denoiser: embedding tokens, patches, noise, guidance, truncation, posterior and draw.
Beside them stands the same step of diffusers' schedulers, which is told the answer as well.
"""

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.contrast import CODES, GRID, Random, Tokens
from benchmarks.peers.table import Row
from benchmarks.turns import seconds_in_turns
from mmdiffusion.diffusion import Ancestral, CosineSchedule, ReleasedSchedule
from mmdiffusion.methods import CDCD, MTDiffusion
from mmdiffusion.nn import Denoised, Denoiser, Level
from mmdiffusion.types import Condition, DataSpec, ImageSpec, TokenSpec

NEEDS = ("diffusers", "transformers")
BATCH, STEPS = 8, 50
NUM_STEPS, TRUNCATION, TOKEN_STEPS = 80, 0.86, 10


class Ready(Denoiser):
    """A denoiser whose answer is ready; arguments as `Denoiser`."""

    answer: Tensor | None = None

    def forward(self, tokens: Tensor, time: Tensor, condition: Condition, **_: object) -> Denoised:
        """The same answer to everything."""
        if self.answer is None:
            shape = (len(tokens), *self.grid, self.out.out_features)
            self.answer = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
        return Denoised(self.answer, {"mid": tokens}, None)


def gaussian() -> Callable[[], object]:
    """DDIM on 8 images of 32 x 32 x 3 pixels."""
    denoiser = partial(Ready, levels=[Level(16, 1, 2)])
    method = MTDiffusion({"image": ImageSpec(3, 32)}, denoiser, CosineSchedule(1000), patch_size=2, steps=STEPS)
    return partial(method.sample, {}, seeds=range(BATCH))


def gaussian_peer() -> Callable[[], object]:
    """DDIM by diffusers' scheduler on the same images."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler = DDIMScheduler(1000)
    noisy = torch.randn(BATCH, 3, 32, 32)
    answer = torch.randn_like(noisy)

    def sample() -> Tensor:
        scheduler.set_timesteps(STEPS)
        state = noisy
        for t in scheduler.timesteps:
            state = scheduler.step(answer, t, state).prev_sample  # pyright: ignore
        return state

    return sample


def discrete() -> Callable[[], object]:
    """Ancestral sampling of 1,024 tokens of 2,887 codes with truncation."""
    denoiser = partial(Ready, levels=[Level(16, 1, 2)])
    schedule = ReleasedSchedule(NUM_STEPS)
    spec: DataSpec = {"tokens": TokenSpec(CODES, GRID)}
    method = CDCD(
        spec, Tokens, Random, denoiser, schedule, Ancestral(), steps=TOKEN_STEPS, truncation=TRUNCATION, token_width=192
    )
    return partial(method.sample, {}, seeds=[0])


def discrete_peer() -> Callable[[], object]:
    """The same steps by diffusers' VQ-Diffusion, with the truncation of its pipeline."""
    from diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion import VQDiffusionPipeline
    from diffusers.schedulers.scheduling_vq_diffusion import VQDiffusionScheduler

    scheduler = VQDiffusionScheduler(CODES + 1, NUM_STEPS)
    truncate = VQDiffusionPipeline.truncate
    answer = (torch.randn(1, CODES, GRID[0] * GRID[1]) * 3).log_softmax(1)

    def sample() -> Tensor:
        scheduler.set_timesteps(TOKEN_STEPS)
        state = torch.full((1, GRID[0] * GRID[1]), CODES)
        for t in scheduler.timesteps:
            kept = truncate(None, answer, TRUNCATION).clamp(-70)  # pyright: ignore
            state = scheduler.step(kept, t, state).prev_sample  # pyright: ignore
        return state

    return sample


def measure(rounds: int) -> list[Row]:
    """Rows of the table.

    Args:
        rounds: Rounds that count.
    """
    runs = {"gaussian": gaussian(), "discrete": discrete()}
    peers = {"gaussian": gaussian_peer(), "discrete": discrete_peer()}
    rows = []
    for kind, limit, steps, what in (
        ("gaussian", 1.0, STEPS, f"Gaussian, 32 x 32 x 3, batch {BATCH}"),
        ("discrete", 30.0, TOKEN_STEPS, f"discrete, 1,024 tokens of {CODES:,} codes, truncation {TRUNCATION}"),
    ):
        seconds = seconds_in_turns({"ours": runs[kind], "peer": peers[kind]}, rounds)
        mine, other = ([1e3 * second / steps for second in seconds[who]] for who in ("ours", "peer"))
        peer = f"{statistics.median(other):.2f} ms, diffusers' scheduler"
        bar = f"sampling, {what}: a call outside the network"
        rows.append(Row(bar, limit, False, mine, f"{steps} steps", peer, "{:.2f} ms"))
    return rows
