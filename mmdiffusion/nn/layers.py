"""Layers of the denoiser: time features, rotary positions, attention, feed-forward, adaptive normalisation."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

Tokens = Float[Tensor, "b n d"]
Vector = Float[Tensor, "b e"]
Rotation = tuple[Float[Tensor, "g a"], Float[Tensor, "g a"]]
"""Cosines and sines of the rotary angles of each token."""
Heads = Float[Tensor, "b n heads e"]


class KeysValues(NamedTuple):
    """What other tokens see of some tokens, in every head.

    Attributes:
        keys: Normalised and turned.
        values: As they are.
    """

    keys: Heads
    values: Heads


def join(first: KeysValues, second: KeysValues | None) -> KeysValues:
    """Tokens and further tokens beside them, where there are any."""
    if second is None:
        return first
    return KeysValues(*(torch.cat(parts, dim=1) for parts in zip(first, second, strict=True)))


def zero_init(layer: nn.Linear) -> nn.Linear:
    """Set a layer to zero, so that the branch it ends starts as nothing (Peebles & Xie 2023, arXiv 2212.09748)."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class TimeEmbedding(nn.Module):
    """Sinusoidal features of the time, then an MLP (Ho et al. 2020, App. B, arXiv 2006.11239).

    Args:
        width: Width of the embedding.
        num_frequencies: Number of frequencies, geometric from 1e3 down to 0.1 radians per unit of time.
    """

    frequencies: Tensor

    def __init__(self, width: int, num_frequencies: int = 64) -> None:
        super().__init__()
        exponents = torch.arange(num_frequencies) / (num_frequencies - 1)
        self.register_buffer("frequencies", torch.exp(math.log(1e4) * exponents).reciprocal() * 1e3, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * num_frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Float[Tensor, " b"]) -> Vector:
        """Embed times in [0, 1], 0 the clean state."""
        angles = time[:, None].float() * self.frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1))


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


class SelfAttention(nn.Module):
    """Multi-head self-attention with normalised queries and keys (Dehghani et al. 2023, Sec. 2, arXiv 2302.05442).

    Queries and keys share one learned scale: only its square acts.

    Args:
        width: Width of the tokens, a multiple of `num_heads`; the heads' width is even.
        num_heads: Number of heads.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project = nn.Linear(width, 3 * width)
        self.scale = nn.Parameter(torch.ones(width // num_heads))
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Tokens,
        rotation: Rotation | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
        beside: KeysValues | None = None,
    ) -> tuple[Tokens, KeysValues]:
        """Mix tokens.

        Args:
            x: Tokens.
            rotation: Rotary angles; `None` for no positions.
            mask: True where a token is seen by the others; `None` for all.
            beside: Keys and values of further tokens that these see, and are not seen by.

        Returns:
            The mixed tokens; and their keys and values, for others to see.
        """
        queries, seen = self.heads(x, rotation)
        return self.mix(queries, join(seen, beside), mask), seen

    def heads(self, x: Tokens, rotation: Rotation | None = None) -> tuple[Heads, KeysValues]:
        """Queries, keys and values of every head.

        Args:
            x: Tokens.
            rotation: Rotary angles; `None` for no positions.
        """
        projected = self.project(x).unflatten(-1, (3, self.num_heads, -1)).movedim(2, 0)
        queries_keys, values = normalise(projected[:2], self.scale), projected[2]
        if rotation is not None:
            queries_keys = rotate(queries_keys, rotation)
        return queries_keys[0], KeysValues(queries_keys[1], values)

    def mix(self, queries: Heads, seen: KeysValues, mask: Bool[Tensor, "b m"] | None = None) -> Tokens:
        """What queries make of the tokens they see.

        Args:
            queries: Of every head.
            seen: Keys and values of the tokens that are seen.
            mask: True where one counts; `None` counts all.
        """
        return self.out(attend(queries, seen.keys, seen.values, mask))


class CrossAttention(nn.Module):
    """Multi-head attention from tokens to a context; normalised as `SelfAttention`.

    Args:
        width: Width of the tokens, a multiple of `num_heads`.
        num_heads: Number of heads.
        context_width: Width of the context tokens.
    """

    def __init__(self, width: int, num_heads: int, context_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project = nn.Linear(width, width)
        self.project_context = nn.Linear(context_width, 2 * width)
        self.scale = nn.Parameter(torch.ones(width // num_heads))
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Tokens,
        context: Float[Tensor, "b m c"],
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> Tokens:
        """Read the context.

        Args:
            x: Tokens.
            context: Context tokens.
            mask: True where a context token counts; `None` counts all.
        """
        queries = normalise(self.project(x).unflatten(-1, (self.num_heads, -1)), self.scale)
        keys, values = self.project_context(context).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        return self.out(attend(queries, normalise(keys, self.scale), values, mask))


def normalise(x: Float[Tensor, "*b d"], scale: Float[Tensor, " d"]) -> Float[Tensor, "*b d"]:
    """Layer normalisation over the last axis, in the precision of `x`."""
    return F.layer_norm(x, x.shape[-1:], scale.to(x.dtype), eps=1e-6)


def attend(
    queries: Float[Tensor, "b n heads d"],
    keys: Float[Tensor, "b m heads d"],
    values: Float[Tensor, "b m heads d"],
    mask: Bool[Tensor, "b m"] | None = None,
) -> Float[Tensor, "b n heads*d"]:
    """Attention of every head, heads side by side in the result.

    Fused, but for short sequences in bfloat16 on the CPU: there PyTorch's fused backward pass takes 5.6 times as long
    as plain products at 64 tokens, 1.8 at 512, and 0.5 to 0.9 at 1,024; in float32 it takes 0.1 to 0.5 at any length.
    """
    queries, keys, values = (x.transpose(1, 2) for x in (queries, keys, values))
    allowed = None if mask is None else mask[:, None, None]
    if queries.device.type == "cpu" and queries.dtype == torch.bfloat16 and queries.shape[-2] < 1024:
        scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
        scores = scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)
        attended = scores.softmax(-1).to(values.dtype) @ values
    else:
        attended = F.scaled_dot_product_attention(queries, keys, values, allowed)
    return attended.transpose(1, 2).flatten(2)


class FeedForward(nn.Sequential):
    """Two linear layers around a GELU.

    Args:
        width: Width of the tokens.
        expansion: Hidden width as a multiple of `width`.
    """

    def __init__(self, width: int, expansion: int = 4) -> None:
        super().__init__(
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Linear(expansion * width, width),
        )


def modulate(
    x: Float[Tensor, "b *n d"],
    shift: Float[Tensor, "b *one d"],
    scale: Float[Tensor, "b *one d"],
) -> Float[Tensor, "b *n d"]:
    """Normalise each token, then scale by 1 + scale and shift (adaLN; Peebles & Xie 2023, Sec. 3.2)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class Block(nn.Module):
    """Transformer block with adaLN-zero: attention, optional cross-attention, feed-forward.

    Peebles & Xie 2023, Fig. 3, arXiv 2212.09748. Every branch ends in a gate that starts at zero.

    Args:
        width: Width of the tokens.
        num_heads: Number of heads.
        vector_width: Width of the modulating vector.
        context_width: Width of context tokens; `None` for no cross-attention.
    """

    def __init__(self, width: int, num_heads: int, vector_width: int, context_width: int | None = None) -> None:
        super().__init__()
        self.modulation = zero_init(nn.Linear(vector_width, 6 * width))
        self.attention = SelfAttention(width, num_heads)
        self.feed_forward = FeedForward(width)
        self.cross = None
        if context_width is not None:
            self.cross = CrossAttention(width, num_heads, context_width)
            self.cross_norm = nn.LayerNorm(width, eps=1e-6)
            zero_init(self.cross.out)

    def forward(
        self,
        x: Tokens,
        vector: Vector,
        rotation: Rotation | None,
        context: Float[Tensor, "b m c"] | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
        beside: KeysValues | None = None,
    ) -> tuple[Tokens, KeysValues]:
        """Run the block.

        Args:
            x: Tokens of the grid.
            vector: Modulates them, after SiLU.
            rotation: Rotary angles of the grid, or `None`.
            context: Context tokens for the cross-attention.
            mask: True where a context token counts.
            beside: Keys and values of further tokens that join the attention, such as a text query's.

        Returns:
            The tokens; and what others can see of them in this block's attention.
        """
        shift, scale, gate, *second = self.modulation(vector)[:, None].chunk(6, dim=-1)
        mixed, seen = self.attention(modulate(x, shift, scale), rotation, beside=beside)
        x = torch.addcmul(x, gate, mixed)
        if self.cross is not None:
            x = x + self.cross(self.cross_norm(x), context, mask)
        shift, scale, gate = second
        return torch.addcmul(x, gate, self.feed_forward(modulate(x, shift, scale))), seen


class Layer(nn.Module):
    """Transformer layer without time: attention, then a feed-forward network, each normalised first and added.

    Args:
        width: Width of the tokens, a multiple of `num_heads`.
        num_heads: Number of heads.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(
        self,
        x: Tokens,
        mask: Bool[Tensor, "b n"] | None = None,
        beside: KeysValues | None = None,
    ) -> tuple[Tokens, KeysValues]:
        """Tokens that have seen each other.

        Args:
            x: Tokens.
            mask: True where a token counts; `None` counts all.
            beside: Keys and values of further tokens that these see.

        Returns:
            The tokens; and what others can see of them in this layer.
        """
        mixed, seen = self.attention(self.attention_norm(x), mask=mask, beside=beside)
        x = x + mixed
        return x + self.feed_forward(self.feed_forward_norm(x)), seen
