"""Layers of the denoiser: time features, rotary positions, attention, feed-forward, adaptive normalisation."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

Tokens = Float[Tensor, "b n d"]
Vector = Float[Tensor, "b e"]
Rotation = tuple[Float[Tensor, "g a"], Float[Tensor, "g a"]]
"""Cosines and sines of the rotary angles of each token."""


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


def rotate(x: Float[Tensor, "*b n heads d"], rotation: Rotation) -> Float[Tensor, "*b n heads d"]:
    """Turn channel i of each head with channel i + d/2 by the token's angles.

    Args:
        x: Queries or keys. Tokens beyond those of the rotation (a text query) have no position and stay.
        rotation: Cosines and sines of the first tokens.
    """
    cosine, sine = (part[:, None].to(x.dtype) for part in rotation)
    turned, rest = x.split([len(cosine), x.shape[-3] - len(cosine)], dim=-3)
    first, second = turned.chunk(2, dim=-1)
    turned = torch.addcmul(turned * cosine, torch.cat([-second, first], dim=-1), sine)
    return torch.cat([turned, rest], dim=-3) if rest.shape[-3] else turned


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
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Tokens:
        """Mix tokens.

        Args:
            x: Tokens.
            rotation: Rotary angles; `None` for no positions.
            mask: True where a token is seen by the others; `None` for all.
        """
        projected = self.project(x).unflatten(-1, (3, self.num_heads, -1)).movedim(2, 0)
        queries_keys, values = normalise(projected[:2], self.scale), projected[2]
        if rotation is not None:
            queries_keys = rotate(queries_keys, rotation)
        return self.out(attend(queries_keys[0], queries_keys[1], values, mask))


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
        query: Float[Tensor, "b q d"] | None = None,
        query_vector: Vector | None = None,
    ) -> tuple[Tokens, Float[Tensor, "b q d"] | None]:
        """Run the block over image tokens and, beside them, query tokens with a time of their own.

        Args:
            x: Tokens of the grid.
            vector: Modulates them, after SiLU.
            rotation: Rotary angles of the grid, or `None`.
            context: Context tokens for the cross-attention.
            mask: True where a context token counts.
            query: Query tokens, which join the attention without position.
            query_vector: Modulates them.
        """
        streams = [x] if query is None else [x, query]
        vectors = [vector] if query is None else [vector, query_vector]
        chunks = [self.modulation(v)[:, None].chunk(6, dim=-1) for v in vectors]
        lengths = [stream.shape[1] for stream in streams]

        normed = [modulate(stream, c[0], c[1]) for stream, c in zip(streams, chunks, strict=True)]
        mixed = self.attention(join(normed), rotation).split(lengths, dim=1)
        streams = [torch.addcmul(s, c[2], m) for s, c, m in zip(streams, chunks, mixed, strict=True)]
        if self.cross is not None:
            streams[0] = streams[0] + self.cross(self.cross_norm(streams[0]), context, mask)
        normed = [modulate(stream, c[3], c[4]) for stream, c in zip(streams, chunks, strict=True)]
        mixed = self.feed_forward(join(normed)).split(lengths, dim=1)
        streams = [torch.addcmul(s, c[5], m) for s, c, m in zip(streams, chunks, mixed, strict=True)]
        return streams[0], streams[1] if query is not None else None


def join(streams: list[Float[Tensor, "b _ d"]]) -> Tokens:
    """Streams one after the other along the tokens; a single stream is not copied."""
    return torch.cat(streams, dim=1) if len(streams) > 1 else streams[0]
