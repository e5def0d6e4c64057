"""Layers of the denoiser: time features, feed-forward, adaptive normalisation, blocks."""

import math
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffusion.nn.attention import CrossAttention, KeysValues, SelfAttention, Tokens
from mmdiffusion.nn.positions import Rotation
from mmdiffusion.nn.recomputation import in_precision_of_products, recomputed

Vector = Float[Tensor, "b e"]


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

    def forward(self, input: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Run the layers."""
        first, activation, last = self
        return recomputed(partial(activation, first(input)), last)


def modulate(
    x: Float[Tensor, "b *n d"],
    shift: Float[Tensor, "b *one d"],
    scale: Float[Tensor, "b *one d"],
) -> Float[Tensor, "b *n d"]:
    """Normalise each token, then scale by 1 + scale and shift (adaLN; Peebles & Xie 2023, Sec. 3.2), for a product."""
    normalise = partial(F.layer_norm, x, x.shape[-1:], eps=1e-6)
    modulated = recomputed(normalise, lambda normalised: torch.addcmul(shift, normalised, 1 + scale))
    return in_precision_of_products(modulated)


def normalise_by(norm: nn.LayerNorm, x: Tokens) -> Tokens:
    """Normalise each token, for a product."""
    return in_precision_of_products(norm(x))


class Modulation(nn.Linear):
    """Shifts, scales and gates of tokens from a vector, zero at the start (Peebles & Xie 2023, Sec. 3.2).

    A class of its own, for it maps no features to features: see `mmdiffusion.optimizers.is_matrix`.

    Args:
        vector_width: Width of the vector.
        width: Width of the tokens.
        num_parts: How many shifts, scales and gates.
    """

    def __init__(self, vector_width: int, width: int, num_parts: int) -> None:
        super().__init__(vector_width, num_parts * width)
        zero_init(self)


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
        self.modulation = Modulation(vector_width, width, 6)
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
        attend = partial(self.attention, rotation=rotation, beside=beside)
        mixed, seen = recomputed(partial(modulate, x, shift, scale), attend)
        x = torch.addcmul(x, gate, mixed)
        if self.cross is not None:
            read = partial(self.cross, context=context, mask=mask)
            x = x + recomputed(partial(normalise_by, self.cross_norm, x), read)
        shift, scale, gate = second
        return torch.addcmul(x, gate, recomputed(partial(modulate, x, shift, scale), self.feed_forward)), seen


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
