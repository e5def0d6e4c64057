"""Training step of diffusion of 32 x 32 x 3 pixels, about 10 M parameters, batch 32, beside two U-Nets.

Each with its own loss as its package comes; ours is the denoiser in `MTDiffusion` without extra modalities. Widths are
chosen so that all do the same number of operations; what is left of the difference is divided out.
"""

import statistics
from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
from torch import Tensor, nn

from benchmarks.peers.steps import PRECISIONS, Step, count_flops, described, training_step
from benchmarks.peers.table import Row, ratios
from benchmarks.turns import seconds_in_turns
from mmdiffusion.diffusion import CosineSchedule
from mmdiffusion.methods import MTDiffusion
from mmdiffusion.nn import Denoiser, Level
from mmdiffusion.types import Batch, ImageSpec

NEEDS = ("denoising_diffusion_pytorch", "diffusers")
BATCH, SIZE, NUM_STEPS = 32, 32, 1000
LEVELS = [Level(256, 3, 2), Level(320, 1, 5)]
LIMITS = {"float32": 1.0, "bfloat16": 1.3}
TOLERANCE = 0.05
"""Share by which the operations of a step may differ."""

Loss = Callable[[], Tensor]


def ours() -> tuple[nn.Module, Loss]:
    """Our denoiser with its loss."""
    denoiser = partial(Denoiser, levels=LEVELS, positions="learned")
    method = MTDiffusion({"image": ImageSpec(3, SIZE)}, denoiser, CosineSchedule(NUM_STEPS), patch_size=2)
    batch: Batch = {"image": images(), "index": torch.arange(BATCH)}
    generator = torch.Generator().manual_seed(0)
    return method, lambda: method.losses(batch, generator)["loss"]


def lucidrains() -> tuple[nn.Module, Loss]:
    """The U-Net of denoising-diffusion-pytorch with its loss, everything as it comes."""
    peer = import_module("denoising_diffusion_pytorch")
    diffusion = peer.GaussianDiffusion(peer.Unet(64, dim_mults=(1, 2, 4)), image_size=SIZE)
    pixels = images() / 2 + 0.5
    return diffusion, lambda: diffusion(pixels)


def diffusers() -> tuple[nn.Module, Loss]:
    """The U-Net of diffusers, attention at 16 x 16, with the loss of its documentation."""
    from diffusers.models.unets.unet_2d import UNet2DModel
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    widths = (64, 128, 128, 128)
    down = ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D")
    up = ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    model = UNet2DModel(SIZE, block_out_channels=widths, down_block_types=down, up_block_types=up)
    scheduler, clean = DDPMScheduler(NUM_STEPS), images()

    def loss() -> Tensor:
        time, noise = torch.randint(NUM_STEPS, (BATCH,)), torch.randn_like(clean)
        noisy = scheduler.add_noise(clean, noise, time)  # pyright: ignore[reportArgumentType]
        return nn.functional.mse_loss(model(noisy, time).sample, noise)

    return model, loss


def images() -> Tensor:
    """Fixed random images in [-1, 1]."""
    return torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


PEERS = {"denoising-diffusion-pytorch": lucidrains, "diffusers UNet2DModel": diffusers}


def measure(rounds: int) -> list[Row]:
    """Rows of the table.

    Args:
        rounds: Rounds that count.
    """
    rows: list[Row] = []
    for name, precision in PRECISIONS.items():
        steps: dict[str, Step] = {}
        sizes: dict[str, str] = {}
        for who, build in {"ours": ours, **PEERS}.items():
            torch.manual_seed(0)
            model, loss = build()
            steps[who] = training_step(model, loss, precision)
            sizes[who] = f"{sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6:.1f} M, "
        rows += compare(name, steps, sizes, rounds)
    return rows


def compare(precision: str, steps: dict[str, Step], sizes: dict[str, str], rounds: int) -> list[Row]:
    """Rows of one precision.

    Args:
        precision: Its name.
        steps: Training steps, ours and the peers'.
        sizes: Parameters, in words.
        rounds: Rounds that count.
    """
    flops = {who: count_flops(step) for who, step in steps.items()}
    middle = statistics.mean(flops.values())
    assert all(abs(count / middle - 1) < TOLERANCE for count in flops.values()), f"unequal work: {flops}"
    seconds = seconds_in_turns(steps, rounds)
    told = {who: sizes[who] + described(seconds[who], flops[who]) for who in steps}
    bar = f"training step, {SIZE} x {SIZE} x 3, batch {BATCH}, {precision}: speed over"
    return [
        Row(
            f"{bar} {peer}",
            LIMITS[precision],
            True,
            ratios(seconds[peer], seconds["ours"], flops["ours"] / flops[peer]),
            told["ours"],
            told[peer],
        )
        for peer in PEERS
    ]
