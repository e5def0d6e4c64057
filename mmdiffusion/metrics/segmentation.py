"""Maps of classes against the true ones."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.types import DataSpec, SegmentationSpec


class MeanIntersectionOverUnion(SampleMetric):
    """Intersection over union of each class, pooled over all pixels, and their mean over the classes that occur.

    As usual since PASCAL VOC (Everingham et al. 2015, Sec. 4.3). Classes in neither map are left out.

    Args:
        entry: Name of the batch entry that holds the maps; its true ones are `reference_` before it.
    """

    higher_is_better = True
    confusion: Tensor
    num_seen: Tensor

    def __init__(self, entry: str = "segmentation") -> None:
        super().__init__()
        self.inputs = (entry, f"reference_{entry}")
        self.names: tuple[str, ...] = ()
        self.add_state("confusion", torch.zeros(0, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_seen", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def name(self) -> str:
        """`mean_iou[segmentation]`."""
        return f"mean_iou[{self.inputs[0]}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Classes, how pixels are pooled, and the count behind the last value."""
        return {"classes": ", ".join(self.names), "pooled": "over all pixels", "num_samples": self.num_samples}

    def describe(self, spec: DataSpec) -> None:
        """Learn the classes.

        Raises:
            ValueError: if the data has no such maps.
        """
        maps = spec.get(self.inputs[0])
        if not isinstance(maps, SegmentationSpec):
            raise ValueError(f"{self.name()}: spec has {', '.join(spec)}, expected {self.inputs[0]} with classes")
        self.names, count = maps.names, len(maps.names)
        self._defaults["confusion"] = torch.zeros(count * count, dtype=torch.int64)
        self.reset()

    def update(self, drawn: Int[Tensor, "b h w"], true: Int[Tensor, "b h w"]) -> None:
        """Add drawn and true maps, both (b, h, w).

        Raises:
            ValueError: before `describe`.
        """
        count = len(self.names)
        if not count:
            raise ValueError(f"{self.name()}: expected describe(spec) first; it tells the classes")
        pairs = (true.long() * count + drawn.long()).flatten()
        self.confusion += pairs.bincount(minlength=count * count).to(self.confusion.device)
        self.num_seen += len(true)

    def compute(self) -> Float[Tensor, ""]:
        """Mean in [0, 1] over all processes, a float64 scalar.

        Raises:
            ValueError: if there is no sample altogether.
        """
        self.count_samples(self.num_seen)
        confusion = self.confusion.view(len(self.names), -1).double()
        union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
        return (confusion.diagonal() / union)[union > 0].mean()
