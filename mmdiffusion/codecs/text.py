"""Text towers: captions as token vectors and as one vector, by nothing that trains."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.codecs.encoder import Encoder
from mmdiffusion.types import DataSpec, TextSpec


class Text(NamedTuple):
    """Captions as a tower reads them.

    Attributes:
        tokens: One vector a token.
        mask: True where a token is.
        summary: One vector a caption, of length 1.
    """

    tokens: Float[Tensor, "b n d"]
    mask: Bool[Tensor, "b n"]
    summary: Float[Tensor, "b e"]


class TextTower(Encoder):
    """A frozen reader of captions.

    Args:
        width: Width of a token's vector.
        summary_width: Width of a caption's vector.
        max_tokens: Tokens of the longest caption; all captions are filled up to it.
    """

    reads = "caption"
    replaces = False

    def __init__(self, width: int, summary_width: int, max_tokens: int) -> None:
        super().__init__()
        self.width, self.summary_width, self.max_tokens = width, summary_width, max_tokens

    @abstractmethod
    def forward(self, captions: Sequence[str]) -> Text:
        """Read captions.

        Args:
            captions: b captions.

        Raises:
            ValueError: if one is empty.
        """

    def parts(self, values: Sequence[str]) -> dict[str, Tensor]:
        """`tokens`, `mask` and `summary`, as in `Text`."""
        return self(values)._asdict()


class HashTower(TextTower):
    """Feature hashing of word n-grams and a fixed random projection: nothing to learn and nothing to download.

    Each run of 1 to `max_ngram` words falls into one of `num_buckets` buckets with a sign (Weinberger et al. 2009,
    arXiv 0902.2206), each bucket has one fixed random vector. A token is the sum over the runs that end at its word,
    with variance 1; a caption the sum over all its runs, with length 1. Captions are read in lower case.

    Args:
        spec: The data, which has captions.
        width: Width of the vectors, of tokens and of captions.
        max_ngram: Words of the longest runs.
        num_buckets: Buckets.
        seed: Seed of the projection.

    Raises:
        ValueError: if the data has no captions.
    """

    projection: Tensor

    def __init__(
        self,
        spec: DataSpec,
        width: int = 256,
        max_ngram: int = 3,
        num_buckets: int = 16_384,
        seed: int = 0,
    ) -> None:
        text = spec.get("caption")
        if not isinstance(text, TextSpec):
            raise ValueError(f"spec has {', '.join(spec)}: HashTower expects data with a caption, such as Shapes")
        if min(width, max_ngram, num_buckets) < 1:
            raise ValueError(f"width, max_ngram, num_buckets are {width}, {max_ngram}, {num_buckets}: expected above 0")
        super().__init__(width, width, text.max_words)
        self.max_ngram, self.num_buckets = max_ngram, num_buckets
        rows = torch.randn(num_buckets, width, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("projection", rows, persistent=False)

    def forward(self, captions: Sequence[str]) -> Text:
        """Read captions; see `TextTower`.

        Raises:
            ValueError: if one is empty or longer than the data's longest.
        """
        device, shape = self.projection.device, (len(captions), self.max_tokens)
        tokens, mask = torch.zeros(*shape, self.width, device=device), torch.zeros(shape, dtype=torch.bool)
        rows: list[tuple[int, int, int, int]] = []
        for i, caption in enumerate(captions):
            words = self.words(caption)
            mask[i, : len(words)] = True
            rows += [(i, *run) for run in hashed_runs(words, self.max_ngram, self.num_buckets)]
        if rows:
            sample, place, bucket, sign = torch.tensor(rows, device=device).T
            tokens.index_put_((sample, place), self.projection[bucket] * sign[:, None], accumulate=True)
        summary = F.normalize(tokens.sum(1), dim=-1)
        scale = tokens.square().mean(-1, keepdim=True).clamp(min=1e-12).rsqrt()
        return Text(tokens * scale, mask.to(device), summary)

    def words(self, caption: str) -> tuple[str, ...]:
        """Words of a caption.

        Raises:
            ValueError: if there are none, or too many.
        """
        words = tuple(caption.lower().split())
        if not 1 <= len(words) <= self.max_tokens:
            raise ValueError(f"caption {caption!r} has {len(words)} words: expected 1 to {self.max_tokens}")
        return words


@lru_cache(maxsize=65_536)
def hashed_runs(words: tuple[str, ...], max_ngram: int, num_buckets: int) -> tuple[tuple[int, int, int], ...]:
    """Place of the last word, bucket and sign of every run of words.

    Args:
        words: The words.
        max_ngram: Words of the longest runs.
        num_buckets: Buckets.
    """
    runs = []
    for end in range(1, len(words) + 1):
        for start in range(max(0, end - max_ngram), end):
            digest = blake2b(" ".join(words[start:end]).encode(), digest_size=8).digest()
            number = int.from_bytes(digest, "little")
            runs.append((end - 1, (number >> 1) % num_buckets, 1 - 2 * (number & 1)))
    return tuple(runs)
