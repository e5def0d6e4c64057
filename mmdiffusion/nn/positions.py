"""Where a token is: rotary angles in attention, sines and cosines at the input."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Rotation = tuple[Float[Tensor, "g a"], Float[Tensor, "g a"]]
"""Cosines and sines of the rotary angles of each token."""


def rotary_angles(grid: tuple[int, ...], head_width: int) -> Rotation:
    """Rotary angles of every token of a 1-D or 2-D grid (Su et al. 2021, arXiv 2104.09864; axes share the channels).

    Args:
        grid: Number of tokens along each axis.
        head_width: Width of one head; each axis turns `head_width // (2 * len(grid))` channel pairs, channels over
            stay.

    Returns:
        Cosines and sines, one column a channel: those of the first half of the head, then again of the second.
    """
    num_pairs = head_width // (2 * len(grid))
    frequencies = torch.exp(-math.log(1e2) * torch.arange(num_pairs) / num_pairs) * (math.pi / 2)
    axes = torch.meshgrid(*[torch.arange(size, dtype=torch.float32) for size in grid], indexing="ij")
    angles = torch.cat([axis.flatten()[:, None] * frequencies for axis in axes], dim=1)
    angles = F.pad(angles, (0, head_width // 2 - angles.shape[1])).repeat(1, 2)
    return angles.cos(), angles.sin()


def sine_positions(grid: tuple[int, ...], width: int) -> Float[Tensor, "*grid d"]:
    """Sines and cosines of the place of every token of a 1-D or 2-D grid (Vaswani et al. 2017, Sec. 3.5, 1706.03762).

    As large as embedded tokens: positions that started much smaller were drowned by noisy tokens, and it took thousands
    of steps until one token knew where another was.

    Args:
        grid: Number of tokens along each axis.
        width: Width of the tokens; axes share it evenly, channels over are 0.
    """
    num_frequencies = width // (2 * len(grid))
    frequencies = torch.exp(-math.log(1e3) * torch.arange(num_frequencies) / num_frequencies)
    axes = torch.meshgrid(*[torch.arange(size, dtype=torch.float32) for size in grid], indexing="ij")
    angles = torch.cat([axis[..., None] * frequencies for axis in axes], dim=-1)
    features = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return F.pad(features, (0, width - features.shape[-1]))


def rotate(x: Float[Tensor, "*b n heads d"], rotation: Rotation) -> Float[Tensor, "*b n heads d"]:
    """Turn channel i of each head with channel i + d/2 by the token's angles.

    Args:
        x: Queries or keys.
        rotation: Cosines and sines of the tokens.
    """
    cosine, sine = (part[:, None].to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cosine, torch.cat([-second, first], dim=-1), sine)
