"""CLIPScore: does a drawn image say what its caption says, in the eyes of two frozen towers?"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmdiffusion.codecs.image_tower import ImageTower
from mmdiffusion.codecs.text import TextTower
from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.metrics.features import as_stored, move
from mmdiffusion.types import DataSpec


class CLIPScore(SampleMetric):
    """Mean of 100 max(cos(image, caption), 0) (Hessel et al. 2021, arXiv 2104.08718; torchmetrics' scale).

    Hessel et al. weigh the cosine by 2.5 and read "A photo depicts" before each caption; neither is done here. Scores
    of different towers do not compare.

    Args:
        image: Tower of the images, such as CLIP's.
        text: Tower of the captions, into the same space; given the data's spec.
    """

    inputs = ("image", "caption")
    higher_is_better = True
    image: ImageTower
    text: TextTower | None
    total: Tensor
    num_seen: Tensor

    def __init__(
        self,
        image: ImageTower,
        text: Callable[[DataSpec], TextTower],
    ) -> None:
        super().__init__()
        object.__setattr__(self, "image", image)  # past nn.Module: no sub-module, so no weights in checkpoints
        object.__setattr__(self, "text", None)
        self._build_text = text
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_seen", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def name(self) -> str:
        """`clip_score[clip-vit-base-patch32]`, with the source of the image tower."""
        return f"clip_score[{self.image.source}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Towers, scale, and the count behind the last value."""
        scale = {"scale": 100, "num_samples": self.num_samples}
        return {"image_tower": self.image.source, "text_tower": type(self.text).__name__, **scale}

    def describe(self, spec: DataSpec) -> None:
        """Build the text tower for the data's captions.

        Raises:
            ValueError: if the two towers have no space in common.
        """
        text = self._build_text(spec)
        if text.summary_width != self.image.summary_width:
            raise ValueError(
                f"{self.name()}: the towers' vectors have {self.image.summary_width} and {text.summary_width} numbers; "
                "expected one space, such as both towers of one CLIP"
            )
        object.__setattr__(self, "text", text)

    def update(self, image: Float[Tensor, "b c h w"], caption: Sequence[str]) -> None:
        """Add images (b c h w) in [-1, 1] and their b captions."""
        if self.text is None:
            raise ValueError(f"{self.name()}: expected describe(spec) first; it builds the text tower")
        summary = move(self.text, image.device)(caption).summary
        cosine = (move(self.image, image.device)(as_stored(image)) * summary).sum(1).double()
        self.total += 100 * cosine.clamp(min=0).sum().to(self.total.device)
        self.num_seen += len(cosine)

    def compute(self) -> Float[Tensor, ""]:
        """Mean over all processes, 0 to 100, a float64 scalar.

        Raises:
            ValueError: If there is no sample altogether.
        """
        self.count_samples(self.num_seen)
        return self.total / self.num_samples
