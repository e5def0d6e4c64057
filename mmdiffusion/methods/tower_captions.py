"""Captions for a method that has no text tower of its own: a frozen tower reads them, a conditioner learns from it."""

from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor

from mmdiffusion.codecs.text import Text, TextTower
from mmdiffusion.nn.conditioners import Conditioner
from mmdiffusion.nn.text import TowerConditioner
from mmdiffusion.types import Batch, Condition, DataSpec


class TowerCaptions(Conditioner):
    """Captions of any words, as a frozen text tower reads them; CDCD conditions on CLIP's tokens (arXiv 2206.07771).

    Args:
        spec: The data, which has captions.
        tower: Reader of the captions; frozen, and in no checkpoint.
        conditioner: What the tower's tokens become for the denoiser.
    """

    def __init__(
        self,
        spec: DataSpec,
        tower: Callable[[DataSpec], TextTower],
        conditioner: Callable[[int, int], TowerConditioner],
    ) -> None:
        if "caption" not in spec:
            raise ValueError(f"spec has {', '.join(spec)}: TowerCaptions expects data with a caption, such as CUB")
        reader = tower(spec)
        learned = conditioner(reader.width, reader.max_tokens)
        super().__init__(("caption",), learned.width, learned.context_width)
        self.tower, self.learned = reader, learned

    def forward(self, known: Batch, is_dropped: Bool[Tensor, " b"] | None = None) -> Condition:
        """Captions as the denoiser reads them; see `Conditioner`."""
        with torch.no_grad():
            text = Text(**self.tower.of(known))
        return self.learned({"caption_tokens": text.tokens, "caption_mask": text.mask}, is_dropped)

    def null(self, batch_size: int) -> Condition:
        """No caption; see `Conditioner`."""
        return self.learned.null(batch_size)
