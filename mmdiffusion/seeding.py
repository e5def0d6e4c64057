"""Random numbers: training draws come from (seed, rank, step), sampling draws from (seed, sample index).

The global random state is never an input, so noise differs between ranks, a resumed step repeats its noise, and a
sample does not depend on batch size, order or the number of processes.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

_STREAM_BITS = 32
"""PyTorch's CPU generator keeps 32 bits of a seed: streams are spread over these, and no further."""


def stream_seed(seed: int, purpose: str, position: int) -> int:
    """Seed of one stream of random numbers.

    For one (seed, purpose) the map from position to seed is one-to-one over 2**32 positions (a hash chooses the
    offset, the position is multiplied by an odd constant), so two samples or two steps never share their noise.

    Args:
        seed: The experiment's seed.
        purpose: What the numbers are for, such as "train" or "sample".
        position: Number of the stream: a sample's index, or step * world_size + rank.

    Returns:
        A seed in [0, 2**32).
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    offset = int.from_bytes(digest, "little")
    return (offset + position * 0x9E3779B1) % 2**_STREAM_BITS


def text_number(text: str) -> int:
    """A number below 2**63 for a text: the same for texts that say the same, blanks and capitals aside.

    Args:
        text: Any text.
    """
    words = " ".join(text.lower().split())
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little") >> 1


def step_generator(
    seed: int,
    purpose: str,
    step: int,
    *,
    rank: int,
    world_size: int,
    device: torch.device | str,
) -> torch.Generator:
    """Generator of one step on one rank.

    Args:
        seed: The experiment's seed.
        purpose: "train" or "validation".
        step: Number of the batch this process has seen.
        rank: Rank of this process, 0 to `world_size - 1`.
        world_size: Number of processes.
        device: Where the numbers are drawn.
    """
    generator = torch.Generator(device=device)
    return generator.manual_seed(stream_seed(seed, purpose, step * world_size + rank))


class SampleNoise:
    """Random numbers of a batch of samples, each sample from its own stream.

    Draws are made on the CPU, where a stream gives the same numbers whatever the accelerator, and moved.

    Args:
        seed: Seed of the sampling run.
        indices: Index of each sample of the batch.
        device: Where the draws are wanted.
    """

    def __init__(self, seed: int, indices: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.device = device
        self._generators = [torch.Generator().manual_seed(stream_seed(seed, "sample", index)) for index in indices]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._generators)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers, shape (b, *shape)."""
        return torch.stack([torch.randn(shape, generator=g) for g in self._generators]).to(self.device)

    def uniform(self, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform numbers in [0, 1), shape (b, *shape)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self._generators]).to(self.device)
