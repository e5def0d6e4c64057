"""The smallest DiffDis, for several test files."""

from functools import partial
from typing import Any

import pytest
import torch

from mmdiffusion.codecs import HashTower, Pixels
from mmdiffusion.diffusion import CosineSchedule
from mmdiffusion.methods import DiffDis
from mmdiffusion.nn import AlignmentHead, Denoiser, Level, TowerConditioner
from mmdiffusion.types import ImageSpec, TextSpec

SPEC = {"image": ImageSpec(channels=1, size=8), "caption": TextSpec(max_words=4)}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPTS = [f"a small {word}" for word in WORDS]
DIRECTIONS = pytest.mark.parametrize("direction", ["two_way", "one_way"])
STEPS = 50


def build(direction: Any = "two_way", **changes: Any) -> Any:
    """Its weights are the same at every call, and none of them zero."""
    denoiser = partial(
        Denoiser,
        levels=[Level(16, 1, 2), Level(16, 1, 2)],
        embedding_width=16,
        positions="learned",
        query_direction=direction,
    )
    settings: dict[str, Any] = {
        "spec": SPEC,
        "codec": Pixels,
        "tower": partial(HashTower, width=16, num_buckets=256),
        "conditioner": partial(TowerConditioner, width=8, depth=1, heads=2, vector_width=6),
        "denoiser": denoiser,
        "head": partial(AlignmentHead, width=16, depth=1, heads=2),
        "schedule": CosineSchedule(STEPS),
        "patch_size": 2,
        "steps": 3,
        "warmup_steps": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = DiffDis(**settings | changes)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return method


def batch_of(size: int = 20, seed: int = 0) -> dict[str, Any]:
    """Random pictures; ten different captions, in turn."""
    image = torch.rand(size, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return {
        "image": image,
        "caption": [f"a small {WORDS[i % 10]}" for i in range(size)],
        "index": torch.arange(size),
    }
