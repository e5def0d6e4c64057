"""Captions as public data sets keep them: mended, and several for a picture."""

import re
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from mmdiffusion.data.strings import Strings

_NO_WORDS = re.compile("[\\s\ufffd\ud800-\udfff]+")
"""Blanks, ends of lines, and what is left where blanks were lost in an encoding."""


def mend(caption: str) -> str:
    """A caption in one line with single blanks, also where the file has replacement characters for them.

    Some captions of CUB have two U+FFFD in place of each blank; AttnGAN's code reads these as blanks too.

    Args:
        caption: As a file has it.
    """
    return _NO_WORDS.sub(" ", caption).strip()


def shorten(caption: str, max_words: int) -> str:
    """The first words of a caption.

    Args:
        caption: Words with single blanks between them.
        max_words: How many are kept at most.
    """
    if caption.count(" ") < max_words:
        return caption
    return " ".join(caption.split(" ", max_words)[:max_words])


def lines(text: str) -> Iterator[str]:
    """Captions of a text that has one a line; empty lines are none."""
    return (caption for line in text.split("\n") if (caption := mend(line)))


def as_text(stored: bytes) -> str:
    """Text of a file, with or without a mark of its byte order.

    Raises:
        ValueError: if it is not UTF-8.
    """
    try:
        return stored.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"byte 0x{stored[error.start]:02x} at {error.start}"
        raise ValueError(f"not UTF-8 ({found}); convert it, such as with iconv -f latin1 -t utf-8") from error


class Captions:
    """Captions of many pictures, some of which have several, in any order.

    Args:
        texts: All captions.
        owners: Number of the picture that each is about; -1 for none.
        num_pictures: Number of pictures.
    """

    def __init__(self, texts: Strings, owners: Int[Tensor, " n"], num_pictures: int) -> None:
        self.texts, self.order = texts, owners.argsort(stable=True)
        self.counts = torch.bincount(owners + 1, minlength=num_pictures + 1)
        self.ends = self.counts.cumsum(0)[1:]
        self.counts = self.counts[1:]

    def of(self, picture: int) -> list[str]:
        """Captions of one picture, in their own order.

        Args:
            picture: Its number.
        """
        end = int(self.ends[picture])
        return [self.texts[row] for row in self.order[end - int(self.counts[picture]) : end].tolist()]
