"""The denoiser every method stands on: an hourglass transformer over a 1-D or 2-D grid of tokens."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmdiffusion.nn.layers import Block, Modulation, TimeEmbedding, modulate, zero_init
from mmdiffusion.nn.positions import Rotation, rotary_angles, sine_positions
from mmdiffusion.nn.recomputation import recomputing
from mmdiffusion.nn.text_stream import Direction, Reading, Remembered, TextStream
from mmdiffusion.types import Condition

Grid = Float[Tensor, "b *grid d"]


@dataclass(frozen=True)
class Level:
    """One level of the hourglass.

    Args:
        width: Width of its tokens, a multiple of `heads`.
        depth: Blocks on the way down and again on the way up; on the last level, the middle, once.
        heads: Attention heads.
    """

    width: int
    depth: int
    heads: int


class Denoised(NamedTuple):
    """Output of the denoiser.

    Attributes:
        prediction: Channels last, shaped as the input grid; `None` when the pass stopped early (`until`).
        taps: Features by name, channels last: `down.0`, ..., `mid`, ..., `up.0`.
        query: The query tokens after the middle; `None` where none were given.
        memory: What the blocks down to the middle saw of the input, for `TextStream.read`; empty without a stream.
    """

    prediction: Grid | None
    taps: dict[str, Grid]
    query: Float[Tensor, "b q d"] | None
    memory: Sequence[Remembered] = ()


class Denoiser(nn.Module):
    """Hourglass transformer: levels of blocks, tokens merged by 2 along each axis between them, a skip per level.

    One level is a plain DiT (Peebles & Xie 2023, arXiv 2212.09748); merging and skips follow Hourglass Diffusion
    Transformers (Crowson et al. 2024, arXiv 2401.11605). It is not told what it denoises: patches of an image, music
    tokens, latents. Zero-initialised gates and output make the fresh network predict 0.

    Args:
        grid: Tokens along each axis, one or two axes.
        channels: Channels of an input token.
        out_channels: Channels of an output token.
        vector_width: Width of `condition.vector`; `None` when there is none.
        context_width: Width of `condition.tokens`; `None` for no cross-attention.
        query_width: Width of query tokens; `None` when there are none.
        levels: From the finest to the middle.
        query_direction: Whether the input sees the query ("two_way") or not ("one_way"); see `TextStream`.
        num_times: Times per sample: one, or one per modality. A query has one more, the last.
        embedding_width: Width of the vector that modulates every block.
        positions: Rotary angles in every attention, or one learned vector per token at the input, which starts at
            sines and cosines.
        gradient_checkpointing: With `true` training keeps the input of each block alone and runs the block again on the
            way back: much less memory, about a third more time. With `selective` it makes again what is cheap, such as
            normalised tokens: a quarter to two fifths less is kept, for a few percent of time. Gradients are the same
            to the bit.
    """

    def __init__(
        self,
        grid: tuple[int, ...],
        channels: int,
        out_channels: int,
        vector_width: int | None,
        context_width: int | None,
        query_width: int | None,
        levels: list[Level],
        query_direction: Direction = "two_way",
        num_times: int = 1,
        embedding_width: int = 256,
        positions: Literal["rotary", "learned"] = "rotary",
        gradient_checkpointing: bool | Literal["selective"] = False,
    ) -> None:
        super().__init__()
        check_levels(grid, levels)
        self.grid, self.levels, self.num_times = grid, levels, num_times
        self.gradient_checkpointing = gradient_checkpointing
        self.grids = [tuple(size >> i for size in grid) for i in range(len(levels))]
        finest, num_merged = levels[0].width, 2 ** len(grid)

        self.times = nn.ModuleList(TimeEmbedding(embedding_width) for _ in range(num_times))
        self.vector = None if vector_width is None else nn.Linear(vector_width, embedding_width)
        self.has_context = context_width is not None
        self.embed = nn.Linear(channels, finest)
        self.position = nn.Parameter(sine_positions(grid, finest)[None]) if positions == "learned" else None
        self.rotary = positions == "rotary"
        for i, (level, size) in enumerate(zip(levels, self.grids, strict=True)):
            for name, table in zip(("cosine", "sine"), rotary_angles(size, level.width // level.heads), strict=True):
                self.register_buffer(f"{name}_{i}", table, persistent=False)

        def blocks(level: Level) -> nn.ModuleList:
            return nn.ModuleList(
                Block(level.width, level.heads, embedding_width, context_width) for _ in range(level.depth)
            )

        self.down = nn.ModuleList(blocks(level) for level in levels[:-1])
        self.middle = blocks(levels[-1])
        self.up = nn.ModuleList(blocks(level) for level in levels[:-1])
        pairs = list(pairwise(levels))
        self.merge = nn.ModuleList(nn.Linear(num_merged * fine.width, coarse.width) for fine, coarse in pairs)
        self.split = nn.ModuleList(nn.Linear(coarse.width, num_merged * fine.width) for fine, coarse in pairs)
        self.skip = nn.ParameterList(nn.Parameter(torch.full((fine.width,), 0.5)) for fine, _ in pairs)
        self.out_modulation = Modulation(embedding_width, finest, 2)
        self.out = zero_init(nn.Linear(finest, out_channels))

        widths = [level.width for level in levels for _ in range(level.depth)]
        self.stream = None if query_width is None else TextStream(query_width, widths, query_direction)

    def forward(
        self,
        tokens: Float[Tensor, "b *grid channels"],
        time: Float[Tensor, "b *m"],
        condition: Condition,
        *,
        query: Float[Tensor, "b q query_width"] | None = None,
        until: str | None = None,
    ) -> Denoised:
        """Predict from noisy tokens.

        Args:
            tokens: Noisy tokens, channels last.
            time: t / T in [0, 1]: one per sample, or one per modality (b m); with a query its own time is the last.
            condition: What else is known.
            query: Query tokens, which join the attention of the way down and of the middle.
            until: Name of the tap to stop at: no later weight is used and there is no prediction.

        Raises:
            ValueError: if the inputs do not fit the constructor, or `until` names no tap.
        """
        self._check(tokens, time, condition, query, until)
        columns = time[:, None] if time.ndim == 1 else time
        vector = self._vector(columns, condition)
        x = self.embed(tokens)
        if self.position is not None:
            x = x + self.position
        stream, reading = self.stream, None
        if query is not None and stream is not None and stream.direction == "two_way":
            reading = Reading(stream, query, columns[:, -1])
        memory: list[Remembered] = []
        taps: dict[str, Tensor] = {}

        for i, blocks in enumerate([*self.down, self.middle]):
            if i > 0:
                x = self.merge[i - 1](merge_tokens(x))
            x = self._run(blocks, i, x, vector, condition, memory, reading)
            name = "mid" if i == len(self.down) else f"down.{i}"
            taps[name] = x
            if until == name != "mid":
                return Denoised(None, taps, None, memory)
        answer = None if reading is None else reading.hidden
        if query is not None and stream is not None and reading is None:
            answer = stream.read(query, columns[:, -1], memory)
        if until == "mid":
            return Denoised(None, taps, answer, memory)

        for i in reversed(range(len(self.down))):
            fine = split_tokens(self.split[i](x), len(self.grid))
            x = torch.lerp(taps[f"down.{i}"].to(fine.dtype), fine, self.skip[i].to(fine.dtype))
            x = self._run(self.up[i], i, x, vector, condition)
            taps[f"up.{i}"] = x
            if until == f"up.{i}":
                return Denoised(None, taps, answer, memory)

        shift, scale = self.out_modulation(vector).reshape(len(x), *[1] * len(self.grid), -1).chunk(2, dim=-1)
        return Denoised(self.out(modulate(x, shift, scale)), taps, answer, memory)

    @property
    def tap_names(self) -> list[str]:
        """Names of the taps in the order they are computed."""
        count = len(self.levels) - 1
        return [*(f"down.{i}" for i in range(count)), "mid", *(f"up.{i}" for i in reversed(range(count)))]

    @property
    def tap_widths(self) -> dict[str, int]:
        """Width of each tap, by name."""
        widths = [level.width for level in self.levels]
        return dict(zip(self.tap_names, [*widths, *reversed(widths[:-1])], strict=True))

    def parameters_behind_middle(self) -> list[nn.Parameter]:
        """What a pass up to the middle does not use."""
        modules = (self.up, self.split, self.skip, self.out_modulation, self.out)
        return [parameter for module in modules for parameter in module.parameters()]

    def flops(self) -> int:
        """Floating-point operations of one forward pass of one sample, without query and context.

        Matrix products only, 2 per multiply-add.
        """
        num_merged, vector_width = 2 ** len(self.grid), self.out_modulation.in_features
        total = self.out_modulation.weight.numel() + (0 if self.vector is None else self.vector.weight.numel())
        total += sum(weight.numel() for weight in self.times.parameters() if weight.ndim == 2)
        total += math.prod(self.grid) * (self.embed.weight.numel() + self.out.weight.numel())
        for i, (level, grid) in enumerate(zip(self.levels, self.grids, strict=True)):
            num_tokens, is_middle = math.prod(grid), i == len(self.levels) - 1
            block = 12 * level.width**2 * num_tokens + 2 * num_tokens**2 * level.width + 6 * level.width * vector_width
            total += block * level.depth * (1 if is_middle else 2)
            if not is_middle:  # merge and split
                total += 2 * math.prod(self.grids[i + 1]) * num_merged * level.width * self.levels[i + 1].width
        return 2 * total

    # Parts of the pass -----------------------------------------------------------------------------------------

    def _run(
        self,
        blocks: nn.Module,
        level: int,
        x: Grid,
        vector: Tensor,
        condition: Condition,
        memory: list[Remembered] | None = None,
        reading: Reading | None = None,
    ) -> Grid:
        grid, rotation = x.shape[1:-1], self._rotation(level)
        x = x.flatten(1, -2)
        for block in cast(Iterable[Block], blocks):
            asked = None if reading is None else reading.ask(block.attention)
            beside = None if asked is None else asked.seen
            given = (x, vector, rotation, condition.tokens, condition.mask, beside)
            if self.gradient_checkpointing is True and torch.is_grad_enabled():
                x, seen = checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)
            else:
                with recomputing(self.gradient_checkpointing == "selective"):
                    x, seen = block(*given)
            remembered = Remembered(block.attention, seen)
            if memory is not None and self.stream is not None:
                memory.append(remembered)
            if reading is not None and asked is not None:
                reading.answer(asked, remembered)
        return x.unflatten(1, grid)

    def _rotation(self, level: int) -> Rotation | None:
        return (self.get_buffer(f"cosine_{level}"), self.get_buffer(f"sine_{level}")) if self.rotary else None

    def _vector(self, columns: Float[Tensor, "b m"], condition: Condition) -> Tensor:
        vector = sum((embed(columns[:, i]) for i, embed in enumerate(self.times)), start=torch.zeros(()))
        if self.vector is not None:
            vector = vector + self.vector(condition.vector)
        return nn.functional.silu(vector)

    def _check(
        self,
        tokens: Tensor,
        time: Tensor,
        condition: Condition,
        query: Tensor | None,
        until: str | None,
    ) -> None:
        if tuple(tokens.shape[1:-1]) != self.grid:
            raise ValueError(f"tokens has grid {tuple(tokens.shape[1:-1])}: expected {self.grid}")
        for name, given, wanted in (
            ("condition.vector", condition.vector, self.vector is not None),
            ("condition.tokens", condition.tokens, self.has_context),
        ):
            if (given is not None) != wanted:
                raise ValueError(
                    f"{name} is {'given' if not wanted else 'missing'}: the denoiser was built the other way"
                )
        if query is not None and self.stream is None:
            raise ValueError("query is given, but query_width is None: expected a denoiser built with query_width")
        num_times = 1 if time.ndim == 1 else time.shape[1]
        if num_times != self.num_times + (query is not None):
            raise ValueError(
                f"time has {num_times} columns: expected num_times = {self.num_times}, one more with a query"
            )
        if until is not None and until not in self.tap_names:
            raise ValueError(f"until is {until!r}: expected one of {', '.join(self.tap_names)}")


def check_levels(grid: tuple[int, ...], levels: list[Level]) -> None:
    """Check that the levels can be built over the grid.

    Raises:
        ValueError: naming the field, the value and what was expected.
    """
    if len(grid) not in (1, 2):
        raise ValueError(f"grid is {grid}: expected one or two axes")
    if not levels:
        raise ValueError("levels is empty: expected at least one level, the middle")
    factor = 2 ** (len(levels) - 1)
    for size in grid:
        if size % factor or size < factor:
            raise ValueError(
                f"grid is {grid}, levels has {len(levels)}: each axis is halved {len(levels) - 1} times, so expected "
                f"multiples of {factor}; change the image size, the patch size or the number of levels"
            )
    for i, level in enumerate(levels):
        if min(level.width, level.depth, level.heads) < 1 or level.width % level.heads:
            raise ValueError(f"levels[{i}] is {level}: expected positive numbers and a width that heads divides")
        if level.width // level.heads % (2 * len(grid)):
            raise ValueError(
                f"levels[{i}] is {level}: expected a width per head that {2 * len(grid)} divides, so that each axis of "
                "the grid turns pairs of channels"
            )


def merge_tokens(x: Grid) -> Float[Tensor, "b *merged e"]:
    """Put neighbours (2, or 2 x 2) side by side in the channels."""
    if x.ndim == 3:
        return rearrange(x, "b (n i) d -> b n (i d)", i=2)
    return rearrange(x, "b (h i) (w j) d -> b h w (i j d)", i=2, j=2)


def split_tokens(x: Grid, num_axes: int) -> Float[Tensor, "b *split e"]:
    """Inverse of `merge_tokens`."""
    if num_axes == 1:
        return rearrange(x, "b n (i d) -> b (n i) d", i=2)
    return rearrange(x, "b h w (i j d) -> b (h i) (w j) d", i=2, j=2)
