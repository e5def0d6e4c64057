"""A small classifier that trains in seconds and the same bit for bit every time: features of the embedded data sets."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

BATCH_SIZE = 64
NUM_MAP_LAYERS = 7
"""Layers of the trunk up to its last map, half the image's side."""


def build_classifier(channels: int, num_classes: int, num_features: int, seed: int) -> tuple[nn.Sequential, nn.Linear]:
    """Trunk (images to features) and head (features to logits) with weights drawn from `seed` alone.

    Args:
        channels: Channels of an image.
        num_classes: Number of classes.
        num_features: Width of the hidden layer.
        seed: Seed of the weights.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the accelerators as well
        trunk = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(256, num_features),
            nn.ReLU(),
        )
        return trunk.float(), nn.Linear(num_features, num_classes).float()


def train_classifier(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    num_steps: int,
    seed: int,
) -> None:
    """Cross-entropy on randomly shifted batches with AdamW and a one-cycle rate; on the CPU and on one thread.

    Args:
        network: Images to logits.
        images: In [-1, 1].
        labels: Their classes.
        num_steps: Steps of 64 images.
        seed: Seed of batches and shifts.
    """
    images, labels = images.clone(), labels.clone()  # outside inference mode, where the caller may be
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=num_steps)
    with torch.enable_grad(), one_thread(), torch.autocast("cpu", enabled=False):
        for _ in range(num_steps):
            batch = torch.randint(len(images), (BATCH_SIZE,), generator=generator)
            loss = F.cross_entropy(network(_shifted(images[batch], generator)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _shifted(images: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Shift every image by at most one pixel each way; the border is repeated."""
    height, width = images.shape[-2:]
    windows = F.pad(images, (1, 1, 1, 1), mode="replicate").unfold(2, height, 1).unfold(3, width, 1)
    down, right = torch.randint(3, (2, len(images)), generator=generator)
    return windows[torch.arange(len(images)), :, down, right]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run PyTorch's CPU kernels on one thread: sums over several threads differ in the last bit."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
