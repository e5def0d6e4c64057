"""Conditioners that read captions."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmdiffusion.nn.conditioners import Conditioner
from mmdiffusion.nn.layers import Layer
from mmdiffusion.nn.positions import sine_positions
from mmdiffusion.types import Batch, Condition, DataSpec, TextSpec

_PADDING = 0


class CaptionConditioner(Conditioner, ABC):
    """Captions as one context token a word, and their mean as a vector, by a transformer in which all words see all.

    Captions are filled up to the longest, so that what a caption becomes does not depend on the others of its batch;
    the mask tells words from filling.

    Args:
        reads: Names of the entries that a subclass embeds.
        max_tokens: Tokens of the longest caption.
        width: Width of the context tokens, a multiple of `heads`.
        depth: Layers of the transformer, 0 or more.
        heads: Heads of its attention.
        vector_width: Width of the vector.
    """

    def __init__(
        self,
        reads: tuple[str, ...],
        max_tokens: int,
        width: int,
        depth: int,
        heads: int,
        vector_width: int,
    ) -> None:
        super().__init__(reads, vector_width, width)
        if width % heads:
            raise ValueError(f"width is {width}: expected a multiple of heads, which is {heads}")
        self.max_tokens = max_tokens
        self.positions = nn.Parameter(sine_positions((max_tokens,), width))
        self.blocks = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.summary = nn.Linear(width, vector_width)
        self.null_token = nn.Parameter(0.02 * torch.randn(width))
        self.null_vector = nn.Parameter(0.02 * torch.randn(vector_width))

    @abstractmethod
    def embed(self, known: Batch) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """Tokens without positions, and where there is one.

        Args:
            known: The entries that it reads.
        """

    def forward(self, known: Batch, is_dropped: Bool[Tensor, " b"] | None = None) -> Condition:
        """Captions as the denoiser reads them; see `Conditioner`."""
        embedded, mask = self.embed(known)
        x = embedded + self.positions
        for block in self.blocks:
            x, _ = block(x, mask)
        tokens = self.norm(x)
        parts = (self.summary(mean_word(tokens, mask)), tokens, mask)
        if is_dropped is None:
            return Condition(*parts)
        nothing = zip(self._nothing(), parts, strict=True)
        return Condition(*(torch.where(_column(is_dropped, part), none, part) for none, part in nothing))

    def null(self, batch_size: int) -> Condition:
        """Nothing is known: one token that stands for no caption; see `Conditioner`."""
        return Condition(*(part.expand(batch_size, *part.shape) for part in self._nothing()))

    def _nothing(self) -> tuple[Tensor, Tensor, Tensor]:
        """Vector, tokens and mask of a sample without a caption."""
        mask = torch.arange(self.max_tokens, device=self.null_token.device) == 0
        return self.null_vector, self.null_token.expand(self.max_tokens, -1), mask


class TowerConditioner(CaptionConditioner):
    """Captions that a frozen text tower has read; what is trained here makes them the denoiser's.

    Args:
        tower_width: Width of the tower's tokens.
        max_tokens: Tokens of the longest caption.
        width: Width of the context tokens, a multiple of `heads`.
        depth: Layers of the transformer, 0 or more.
        heads: Heads of its attention.
        vector_width: Width of the vector.
    """

    def __init__(
        self,
        tower_width: int,
        max_tokens: int,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        vector_width: int = 64,
    ) -> None:
        super().__init__(("caption_tokens", "caption_mask"), max_tokens, width, depth, heads, vector_width)
        self.enter = nn.Linear(tower_width, width)

    def embed(self, known: Batch) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """The tower's tokens; see `CaptionConditioner`."""
        tokens, mask = known["caption_tokens"], known["caption_mask"]
        assert isinstance(tokens, Tensor)
        assert isinstance(mask, Tensor)
        return self.enter(tokens), mask


class WordConditioner(CaptionConditioner):
    """Captions of a small vocabulary, one trained vector a word.

    Args:
        spec: The data, which has captions and names their words.
        width: Width of the context tokens, a multiple of `heads`.
        depth: Layers of the transformer, 0 or more.
        heads: Heads of its attention.
        vector_width: Width of the vector.

    Raises:
        ValueError: if the data has no captions, or captions of any words.
    """

    def __init__(
        self,
        spec: DataSpec,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        vector_width: int = 64,
    ) -> None:
        text = closed_text(spec)
        super().__init__(("caption",), text.max_words, width, depth, heads, vector_width)
        self.text = text
        self.numbers = {word: number for number, word in enumerate(self.text.vocabulary, start=_PADDING + 1)}
        self.words = nn.Embedding(len(self.numbers) + 1, width, padding_idx=_PADDING)

    def embed(self, known: Batch) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """Words of captions; see `CaptionConditioner`."""
        captions = known["caption"]
        assert isinstance(captions, list)
        ids, mask = (part.to(self.null_token.device) for part in self.tokenize(captions))
        return self.words(ids), mask

    def tokenize(self, captions: list[str]) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """Words as numbers, on the CPU.

        Args:
            captions: b captions, words separated by blanks.

        Returns:
            (b, n) numbers of the words, from 1 in the order of the vocabulary, 0 after the end; (b, n) True where a
            word is. n is the data's longest caption.

        Raises:
            ValueError: if a caption is empty or too long, or has a word that the data does not have.
        """
        rows = [self._numbers(caption) for caption in captions]
        ids = torch.tensor(rows, dtype=torch.int64).reshape(-1, self.text.max_words)
        return ids, ids != _PADDING

    def _numbers(self, caption: str) -> list[int]:
        words, longest = caption.split(), self.text.max_words
        if not 1 <= len(words) <= longest:
            raise ValueError(f"caption {caption!r} has {len(words)} words: expected 1 to {longest}")
        for word in words:
            if word not in self.numbers:
                raise ValueError(
                    f"caption {caption!r} has the word {word!r}: expected some of {', '.join(self.numbers)}"
                )
        return [self.numbers[word] for word in words] + [_PADDING] * (longest - len(words))


def _column(values: Bool[Tensor, " b"], like: Tensor) -> Tensor:
    """One value a sample, shaped to stand beside a tensor of samples."""
    return values.view(-1, *[1] * (like.dim() - 1))


def mean_word(tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b d"]:
    """Mean of the tokens that count, at least one a sample."""
    weight = mask[..., None].to(tokens.dtype)
    return (weight * tokens).sum(1) / weight.sum(1)


def closed_text(spec: DataSpec) -> TextSpec:
    """The captions of data that names all their words.

    Raises:
        ValueError: if the data has no captions, or captions of any words.
    """
    text = spec.get("caption")
    if not isinstance(text, TextSpec):
        raise ValueError(f"spec has {', '.join(spec)}: expected data with a caption, such as Shapes")
    if not text.vocabulary:
        raise ValueError("caption has no vocabulary: expected data that names its words, such as Shapes")
    return text
