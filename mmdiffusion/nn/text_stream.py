"""DiffDis's second stream: a noisy text query that reads an image through the denoiser's own attention.

Huang et al. 2023, arXiv 2308.09306, Fig. 3. In every block of the way down and of the middle the query enters the
self-attention beside the image tokens, skips the cross-attention and has a feed-forward network of its own.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmdiffusion.nn.attention import Heads, KeysValues, SelfAttention
from mmdiffusion.nn.layers import FeedForward, TimeEmbedding

Query = Float[Tensor, "b q d"]
Direction = Literal["two_way", "one_way"]


class Asked(NamedTuple):
    """Query tokens on their way through one block.

    Attributes:
        tokens: As wide as the block.
        queries: What they ask the attention, in every head.
        seen: What others can see of them.
    """

    tokens: Query
    queries: Heads
    seen: KeysValues


class TextStream(nn.Module):
    """Weights of query tokens' own, one block of them for each block of the denoiser that they pass.

    Args:
        width: Width of the query tokens outside of blocks.
        block_widths: Width of each block, in order.
        direction: Who sees whom: "two_way", as in the paper, or "one_way": the query sees the image, the image does not
            see the query, so that it need be looked at only once however often the query is denoised (ours).
    """

    def __init__(self, width: int, block_widths: Sequence[int], direction: Direction = "two_way") -> None:
        super().__init__()
        self.direction: Direction = direction
        self.time = TimeEmbedding(width)
        self.blocks = nn.ModuleList(QueryBlock(width, inner) for inner in block_widths)

    def read(self, query: Query, time: Float[Tensor, " b"], memory: Sequence["Remembered"]) -> Query:
        """Run the whole stream over images that were looked at before; "one_way" only.

        Args:
            query: Noisy text embeddings.
            time: t / T of the query in [0, 1].
            memory: What each block saw of the images.
        """
        assert self.direction == "one_way", "images that see the query cannot be remembered"
        reading = Reading(self, query, time)
        for remembered in memory:
            reading.answer(reading.ask(remembered.attention), remembered)
        return reading.hidden


class Reading:
    """Query tokens on their way from block to block.

    Attributes:
        hidden: What the block before made of them; zero before the first (arXiv 2308.09306, Fig. 3).

    Args:
        stream: Weights.
        query: Noisy text embeddings.
        time: t / T of the query in [0, 1].
    """

    def __init__(self, stream: TextStream, query: Query, time: Float[Tensor, " b"]) -> None:
        self.start = query + stream.time(time)[:, None]
        self.hidden = torch.zeros_like(self.start)
        self._coming = iter(stream.blocks)

    def ask(self, attention: SelfAttention) -> Asked:
        """Enter the next block, knowing the noisy query again (cross-block skip).

        Args:
            attention: The block's.
        """
        block = next(self._coming)
        assert isinstance(block, QueryBlock)
        self._block = block
        return block.ask(self.start + self.hidden, attention)

    def answer(self, asked: Asked, remembered: "Remembered") -> None:
        """See the image in this block, and leave it.

        Args:
            asked: From `ask`.
            remembered: What the block saw of the image.
        """
        self.hidden = self._block.answer(asked, *remembered)


class Remembered(NamedTuple):
    """What a block of the denoiser saw of an image.

    Attributes:
        attention: The block's attention.
        seen: Keys and values of the image tokens in it.
    """

    attention: SelfAttention
    seen: KeysValues


class QueryBlock(nn.Module):
    """The query's part of one block: its way in and out, and a feed-forward network; the attention is the block's.

    Args:
        width: Width of the query tokens outside.
        inner: Width of the block.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, inner)
        self.attention_norm = nn.LayerNorm(inner)
        self.feed_forward_norm = nn.LayerNorm(inner)
        self.feed_forward = FeedForward(inner, expansion=2)
        self.leave = nn.Linear(inner, width)

    def ask(self, query: Query, attention: SelfAttention) -> Asked:
        """Enter the block.

        Args:
            query: The noisy query plus what the block before made of it.
            attention: The block's.
        """
        tokens = self.enter(query)
        return Asked(tokens, *attention.heads(self.attention_norm(tokens)))

    def answer(self, asked: Asked, attention: SelfAttention, image: KeysValues) -> Query:
        """See the query itself and the image, and leave the block.

        Args:
            asked: From `ask`.
            attention: The block's.
            image: Keys and values of the image tokens in it.
        """
        tokens = asked.tokens + attention.mix(asked.queries, image, beside=asked.seen)
        return self.leave(tokens + self.feed_forward(self.feed_forward_norm(tokens)))
