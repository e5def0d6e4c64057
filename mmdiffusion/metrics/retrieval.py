"""Retrieval: does an image find its text among all, and a text its image?"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.seeding import text_number

Query = Literal["image", "text"]


class RetrievalRecall(SampleMetric):
    """R@k: share of queries with a match among the k nearest, any match counts (as CLIP; Radford et al. 2021).

    Rows with the same image are one image, rows with the same caption are one text: five captions of an image, or one
    caption of two images, are all matches. Chance is in the protocol.

    Args:
        query: "image" looks for texts, "text" for images.
        k: How many are looked at, at least 1.
        image: Entry that numbers the images.

    Raises:
        ValueError: if k is less than 1.
    """

    higher_is_better = True
    images: list[Tensor]
    texts: list[Tensor]
    image_numbers: list[Tensor]
    text_numbers: list[Tensor]

    def __init__(self, query: Query = "image", k: int = 1, image: str = "index") -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k is {k}: expected at least 1")
        self.query, self.k = query, k
        self.inputs = ("image_embedding", "text_embedding", image, "caption")
        self.chance, self.num_candidates = 0.0, 0
        # flat and float32, as torchmetrics gathers a process without pairs
        for state in ("images", "texts", "image_numbers", "text_numbers"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def name(self) -> str:
        """`recall_at_5[image to text]`."""
        return f"recall_at_{self.k}[{self.query} to {'text' if self.query == 'image' else 'image'}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Queries, candidates and chance behind the last value."""
        counts = {"num_samples": self.num_samples, "num_candidates": self.num_candidates, "chance": self.chance}
        return {"query": self.query, "match": "any"} | counts

    def update(
        self,
        image: Float[Tensor, "b d"],
        text: Float[Tensor, "b d"],
        number: Int[Tensor, " b"],
        caption: Sequence[str],
    ) -> None:
        """Add embeddings (b, d) of images and texts, numbers (b,) of the images, and b captions."""
        texts = torch.tensor([text_number(words) for words in caption], dtype=torch.int64, device=number.device)
        self.images.append(image.float().flatten())
        self.texts.append(text.float().flatten())
        self.image_numbers.append(to_digits(number.long()))
        self.text_numbers.append(to_digits(texts))

    def compute(self) -> Float[Tensor, ""]:
        """Share in [0, 1] over all processes, a float64 scalar.

        Raises:
            ValueError: if there is no pair.
        """
        kept = [
            dim_zero_cat(state) if len(state) else torch.zeros(0) for state in (self.image_numbers, self.text_numbers)
        ]
        image_numbers, text_numbers = map(from_digits, kept)
        size = len(image_numbers)
        if size == 0:
            raise ValueError(f"{self.name()}: found 0 pairs, expected at least 1")
        images, image_rows = one_each(dim_zero_cat(self.images).view(size, -1), image_numbers)
        texts, text_rows = one_each(dim_zero_cat(self.texts).view(size, -1), text_numbers)
        is_match = torch.zeros(len(images), len(texts), dtype=torch.bool, device=images.device)
        is_match[image_rows, text_rows] = True
        similarity = images @ texts.T
        if self.query == "text":
            similarity, is_match = similarity.T, is_match.T
        self.num_samples, self.num_candidates = is_match.shape
        self.chance = float(chance_of_hit(is_match, self.k))
        return hits(similarity, is_match, self.k).double().mean()


def to_digits(numbers: Int[Tensor, " b"]) -> Float[Tensor, " digits"]:
    """Whole numbers of 64 bits as floats that are exact: three digits each, to base 2**21, the first of any sign."""
    digits = [numbers >> 42, (numbers >> 21) % 2**21, numbers % 2**21]
    return torch.stack(digits, 1).float().flatten()


def from_digits(digits: Float[Tensor, " digits"]) -> Int[Tensor, " b"]:
    """The numbers that `to_digits` was given."""
    first, second, third = digits.view(-1, 3).long().unbind(1)
    return (first << 42) + (second << 21) + third


def one_each(
    values: Float[Tensor, "n d"], numbers: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "m d"], Int[Tensor, " n"]]:
    """The first value of each number, and which of them each row has (derived: no paper)."""
    unique, rows = numbers.unique(return_inverse=True)
    first = torch.full((len(unique),), len(rows), device=rows.device)
    first.scatter_reduce_(0, rows, torch.arange(len(rows), device=rows.device), "amin")
    return values[first], rows


def hits(similarity: Float[Tensor, "q m"], is_match: Bool[Tensor, "q m"], k: int) -> Bool[Tensor, " q"]:
    """Whether a match is among the k most similar candidates of each query; of equal ones, the first count as nearer.

    Args:
        similarity: More is nearer.
        is_match: Which candidates match.
        k: How many are looked at; all where there are fewer.
    """
    nearest = similarity.argsort(dim=1, descending=True, stable=True)[:, :k]
    return is_match.gather(1, nearest).any(1)


def chance_of_hit(is_match: Bool[Tensor, "q m"], k: int) -> Float[Tensor, ""]:
    """Mean probability that k candidates drawn without replacement have a match: 1 - C(m - matches, k) / C(m, k)."""
    count, matches = is_match.shape[1], is_match.sum(1).double()
    missed = torch.ones_like(matches)
    for i in range(min(k, count)):
        missed *= ((count - matches - i) / (count - i)).clamp(min=0)
    return (1 - missed).mean()
