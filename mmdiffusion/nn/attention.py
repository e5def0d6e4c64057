"""Attention: among tokens, to further tokens beside them, and to a context."""

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmdiffusion.nn.blockwise import blockwise_attention
from mmdiffusion.nn.positions import Rotation, rotate
from mmdiffusion.nn.recomputation import recomputed

LONG = 1024
"""Tokens from which a sequence is long: see `attend`."""
REGISTER = 64
"""Bytes of the longest registers of a CPU (AVX-512): a head that takes less is narrow."""

Tokens = Float[Tensor, "b n d"]
Heads = Float[Tensor, "b n heads e"]
Pairs = Float[Tensor, "b n pairs e"]
"""Queries of every head, then keys of every head."""


class KeysValues(NamedTuple):
    """What other tokens see of some tokens, in every head.

    Attributes:
        keys: Normalised and turned.
        values: As they are.
    """

    keys: Heads
    values: Heads

    def packed(self) -> "KeysValues":
        """The same, laid out as attention reads them: worth a copy where many queries come."""
        return KeysValues(*(part.transpose(1, 2).contiguous().transpose(1, 2) for part in self))


def join(first: KeysValues, second: KeysValues) -> KeysValues:
    """Tokens and further tokens beside them."""
    return KeysValues(*(torch.cat(parts, dim=1) for parts in zip(first, second, strict=True)))


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
        projected, values = self._project(x)

        def among(queries_keys: Pairs) -> tuple[Tokens, KeysValues]:
            queries, keys = queries_keys.chunk(2, dim=2)
            seen = KeysValues(keys, values)
            return self.mix(queries, seen, mask, beside), seen

        return recomputed(partial(self._place, projected, rotation), among)

    def heads(self, x: Tokens, rotation: Rotation | None = None) -> tuple[Heads, KeysValues]:
        """Queries, keys and values of every head.

        Args:
            x: Tokens.
            rotation: Rotary angles; `None` for no positions.
        """
        projected, values = self._project(x)
        queries, keys = self._place(projected, rotation).chunk(2, dim=2)
        return queries, KeysValues(keys, values)

    def _project(self, x: Tokens) -> tuple[Pairs, Heads]:
        """Queries and keys, as they are; and values."""
        projected = self.project(x).unflatten(-1, (3 * self.num_heads, -1))
        return projected.split((2 * self.num_heads, self.num_heads), dim=2)

    def _place(self, queries_keys: Pairs, rotation: Rotation | None) -> Pairs:
        """Normalise queries and keys, and turn them."""
        queries_keys = normalise(queries_keys, self.scale)
        return queries_keys if rotation is None else rotate(queries_keys, rotation)

    def mix(
        self,
        queries: Heads,
        seen: KeysValues,
        mask: Bool[Tensor, "b m"] | None = None,
        beside: KeysValues | None = None,
    ) -> Tokens:
        """What queries make of the tokens they see.

        Args:
            queries: Of every head.
            seen: Keys and values of the tokens that are seen.
            mask: True where one counts; `None` counts all.
            beside: Keys and values of further tokens.
        """
        return self.out(attend(queries, seen.keys, seen.values, mask, beside))


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
        projected = self.project(x).unflatten(-1, (self.num_heads, -1))
        keys, values = self.project_context(context).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        keys = normalise(keys, self.scale)
        mixed = recomputed(
            partial(normalise, projected, self.scale),
            lambda queries: attend(queries, keys, values, mask),
        )
        return self.out(mixed)


def normalise(x: Float[Tensor, "*b d"], scale: Float[Tensor, " d"]) -> Float[Tensor, "*b d"]:
    """Layer normalisation over the last axis.

    In the precision of `x`, but for narrow heads in bfloat16 on a CPU: PyTorch takes rows shorter than its registers,
    32 numbers, one number at a time, which took 3.4 times as long (forward and backward) as float32 and two casts.
    """
    is_wider = x.device.type == "cpu" and x.dtype == torch.bfloat16 and is_narrow(x)
    precision = torch.float32 if is_wider else x.dtype
    norm = partial(F.layer_norm, normalized_shape=x.shape[-1:], weight=scale.to(precision), eps=1e-6)
    return recomputed(partial(x.to, precision), norm).to(x.dtype)


def is_narrow(heads: Float[Tensor, "*b d"]) -> bool:
    """Whether a processor's register holds more numbers than a head has."""
    return heads.shape[-1] * heads.element_size() < REGISTER


def pays_in_blocks(
    queries: Float[Tensor, "b n heads d"],
    keys: Float[Tensor, "b m heads d"],
    values: Float[Tensor, "b m heads d"],
) -> bool:
    """Whether `blockwise_attention` is the fastest: long sequences in bfloat16, and of narrow heads in float32."""
    if queries.device.type != "cpu" or queries.shape[1] < LONG or keys.shape[1] == 0:
        return False
    precisions = {queries.dtype, keys.dtype, values.dtype}
    return precisions == {torch.bfloat16} or (precisions == {torch.float32} and is_narrow(queries))


def attend(
    queries: Float[Tensor, "b n heads d"],
    keys: Float[Tensor, "b m heads d"],
    values: Float[Tensor, "b m heads d"],
    mask: Bool[Tensor, "b m"] | None = None,
    beside: KeysValues | None = None,
) -> Float[Tensor, "b n heads*d"]:
    """Attention of every head, heads side by side in the result; a mask goes with nothing `beside`.

    PyTorch's fused kernel, but for bfloat16 and for narrow heads on a CPU, where its backward pass is slow
    (docs/performance.md): long sequences have one in blocks there, and short ones in bfloat16 are plain products.
    """
    if queries.device.type == "cpu" and queries.dtype == torch.bfloat16 and queries.shape[1] < LONG:
        return attend_by_products(queries, keys, values, mask, beside)
    if beside is not None:
        keys, values = join(KeysValues(keys, values), beside)
    in_blocks = pays_in_blocks(queries, keys, values)
    queries, keys, values = (x.transpose(1, 2) for x in (queries, keys, values))
    if in_blocks:
        mixed = blockwise_attention(queries, keys, values, mask)
    else:
        allowed = None if mask is None else mask[:, None, None]
        mixed = F.scaled_dot_product_attention(queries, keys, values, allowed)
    return mixed.transpose(1, 2).flatten(2)


def attend_by_products(
    queries: Float[Tensor, "b n heads d"],
    keys: Float[Tensor, "b m heads d"],
    values: Float[Tensor, "b m heads d"],
    mask: Bool[Tensor, "b m"] | None = None,
    beside: KeysValues | None = None,
) -> Float[Tensor, "b n heads*d"]:
    """`attend` as its formula has it, every weight in memory at once."""
    queries, keys, values = (x.transpose(1, 2) for x in (queries, keys, values))
    queries = queries * queries.shape[-1] ** -0.5  # which are fewer than the scores
    parts = [(keys, values)]  # in parts: many keys are not copied for the few beside them
    if beside is not None:
        parts.append((beside.keys.transpose(1, 2), beside.values.transpose(1, 2)))
    scores = [queries @ part.transpose(-1, -2) for part, _ in parts]
    scaled = scores[0] if beside is None else torch.cat(scores, dim=-1)
    scaled = scaled if mask is None else scaled.masked_fill(~mask[:, None, None], -torch.inf)
    weights = scaled.softmax(-1).to(values.dtype).split([part.shape[2] for part, _ in parts], dim=-1)
    attended = weights[0] @ values
    if beside is not None:
        attended = attended + weights[1] @ parts[1][1]
    return attended.transpose(1, 2).flatten(2)
