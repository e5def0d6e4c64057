"""What a method offers that embeds images and texts in one space: classes by words, and retrieval."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmdiffusion.types import Batch

Embeddings = Float[Tensor, "b d"]
Candidates = Sequence[str] | Sequence[Sequence[str]]
"""A text for each class, or several: an ensemble of prompts."""


class Recognition(ABC):
    """Zero-shot recognition with image and text embeddings of length 1."""

    @abstractmethod
    def encode_image(
        self,
        batch: Batch,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        num_draws: int | None = None,
    ) -> Embeddings:
        """Embed images; no text and no label is read.

        Args:
            batch: `image` (b c h w, in [-1, 1]); and `index` (b), which seeds the noise, counted up where missing.
            steps: Denoising steps; `None` takes the method's own.
            guidance: Guidance by the image; `None` takes the method's own.
            num_draws: Noises that the embedding is averaged over; `None` takes the method's own.

        Returns:
            (b, d) of length 1.

        Raises:
            ValueError: if an image is not of the size that the method was built for.
        """

    @abstractmethod
    def encode_text(self, captions: Sequence[str]) -> Embeddings:
        """Embed texts.

        Args:
            captions: b texts.

        Returns:
            (b, d) of length 1.
        """

    @property
    @abstractmethod
    def inverse_temperature(self) -> float:
        """Scale of the similarities in a softmax."""

    @abstractmethod
    def check_recognition(self, guidance: float | None) -> float:
        """Check a request for embeddings, and say which guidance holds.

        Args:
            guidance: Asked for; `None` for the method's own.

        Raises:
            ValueError: if the method was not trained for it.
        """

    def classify(self, batch: Batch, candidates: Candidates | Float[Tensor, "k d"]) -> Float[Tensor, "b k"]:
        """Probabilities of classes that are named in words (zero-shot, as CLIP; Radford et al. 2021, 2103.00020).

        The images are embedded once, whatever the number of classes.

        Args:
            batch: `image` (b c h w, in [-1, 1]), and `index` (b) or none; see `encode_image`.
            candidates: A text for each of k classes, or several for each; or their embeddings from `encode_classes`,
                to read the texts once for many batches.

        Raises:
            ValueError: if there are fewer than two classes, or two are the same.
        """
        classes = candidates if isinstance(candidates, Tensor) else self.encode_classes(candidates)
        similarity = self.encode_image(batch) @ classes.T
        return (self.inverse_temperature * similarity).softmax(1)

    def encode_classes(self, candidates: Candidates) -> Float[Tensor, "k d"]:
        """One embedding for each class: the mean of its texts', with length 1.

        Args:
            candidates: A text for each of k classes, or several for each.

        Raises:
            ValueError: if there are fewer than two classes, or two are the same.
        """
        check_texts(candidates, "candidates")
        prompts = [[texts] if isinstance(texts, str) else list(texts) for texts in candidates]
        check_classes(prompts)
        embedded = self.encode_text([text for texts in prompts for text in texts])
        means = [part.mean(0) for part in embedded.split([len(texts) for texts in prompts])]
        return F.normalize(torch.stack(means), dim=-1)

    def retrieve(self, batch: Batch, captions: Sequence[str]) -> Float[Tensor, "b m"]:
        """Similarities of images and texts, -1 to 1: rank a row for an image's texts, a column for a text's images.

        Args:
            batch: `image` (b c h w, in [-1, 1]), and `index` (b) or none; see `encode_image`.
            captions: m texts.
        """
        return self.encode_image(batch) @ self.encode_text(captions).T


def check_texts(texts: object, field: str) -> None:
    """Check that several texts are given, and not one, which would be read letter by letter.

    Args:
        texts: What was given.
        field: Its name.

    Raises:
        ValueError: for a single text.
    """
    if isinstance(texts, str):
        raise ValueError(f"{field} is {texts!r}: expected a list of texts")


def check_classes(prompts: Sequence[Sequence[str]]) -> None:
    """Check the texts of classes.

    Raises:
        ValueError: if there are fewer than two classes, a class without text, or two with the same.
    """
    if len(prompts) < 2:
        raise ValueError(f"candidates has {len(prompts)} classes: expected at least two, to choose from")
    seen: dict[tuple[str, ...], int] = {}
    for number, texts in enumerate(prompts):
        if not texts:
            raise ValueError(f"candidates: class {number} has no text, expected at least one")
        first = seen.setdefault(tuple(texts), number)
        if first != number:
            raise ValueError(f"candidates: classes {first} and {number} are both {texts[0]!r}, expected each once")
