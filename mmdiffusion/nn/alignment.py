"""What DiffDis puts behind the middle of the denoiser: the clean text embedding, read off query and image."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmdiffusion.nn.attention import KeysValues
from mmdiffusion.nn.denoiser import Denoiser
from mmdiffusion.nn.layers import Layer
from mmdiffusion.nn.text_stream import Direction, Query, Remembered
from mmdiffusion.types import Condition


class AlignmentHead(nn.Module):
    """The transformer behind the middle that reads the clean text embedding off the query (arXiv 2308.09306).

    Its tokens are the middle's image tokens and the query; the query's position is read. Six layers of width 768 and
    12 heads stand in the paper's reviews; layer normalisation first, GELU and no positions are our choices.

    Args:
        query_width: Width of the query and of the text embedding.
        tap_width: Width of the middle's tokens.
        width: Width of its tokens, a multiple of `heads`.
        depth: Layers, at least 1.
        heads: Attention heads.
        direction: As the text stream's.
    """

    def __init__(
        self,
        query_width: int,
        tap_width: int,
        direction: Direction = "two_way",
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth of the alignment head is {depth}: expected at least 1")
        if width % heads:
            raise ValueError(f"width of the alignment head is {width}: expected a multiple of heads, which is {heads}")
        self.direction: Direction = direction
        self.enter_query = nn.Linear(query_width, width)
        self.enter_image = nn.Linear(tap_width, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, query_width)

    def forward(self, query: Query, middle: Float[Tensor, "b *grid e"]) -> Query:
        """Estimate the clean embedding, of any length.

        Args:
            query: Query tokens after the middle.
            middle: The tap `mid`.
        """
        if self.direction == "one_way":
            return self.read(query, self.remember(middle))
        count, image = query.shape[1], self.enter_image(middle.flatten(1, -2))
        x = torch.cat([self.enter_query(query).to(image.dtype), image], dim=1)
        for layer in self.layers:
            x, _ = layer(x)
        return self.out(self.norm(x[:, :count]))

    def remember(self, middle: Float[Tensor, "b *grid e"]) -> list[KeysValues]:
        """What each layer sees of the image tokens, which do not see the query."""
        x, memory = self.enter_image(middle.flatten(1, -2)), []
        for layer in self.layers:
            x, seen = layer(x)
            memory.append(seen.packed())
        return memory

    def read(self, query: Query, memory: Sequence[KeysValues]) -> Query:
        """Estimate the clean embedding over images that were looked at before.

        Args:
            query: Query tokens after the middle.
            memory: From `remember`.
        """
        x = self.enter_query(query)
        for layer, seen in zip(self.layers, memory, strict=True):
            x, _ = layer(x, beside=seen)
        return self.out(self.norm(x))


Look = Callable[[Query, Float[Tensor, " b"]], Query]
"""Images that were looked at: noisy queries and their time to estimates of the clean ones, of any length."""


def look(
    denoiser: Denoiser,
    head: AlignmentHead,
    tokens: Float[Tensor, "b *grid channels"],
    condition: Condition,
) -> Look:
    """Look at clean images: once for all queries where images do not see them, anew for each where they do.

    Args:
        denoiser: With a text stream; run up to its middle.
        head: What comes behind the middle.
        tokens: Clean image tokens, at time 0.
        condition: No caption: it would give the answer away.
    """
    stream, clean = denoiser.stream, torch.zeros(len(tokens), device=tokens.device)
    assert stream is not None
    assert stream.direction == head.direction

    def anew(query: Query, time: Float[Tensor, " b"]) -> Query:
        times = torch.stack([clean, time], dim=1)
        denoised = denoiser(tokens, times, condition, query=query, until="mid")
        return head(denoised.query, denoised.taps["mid"])

    if stream.direction == "two_way":
        return anew
    seen = denoiser(tokens, clean, condition, until="mid")
    memory = [Remembered(attention, image.packed()) for attention, image in seen.memory]
    remembered = head.remember(seen.taps["mid"])
    return lambda query, time: head.read(stream.read(query, time, memory), remembered)
