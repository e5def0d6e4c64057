"""Zero-shot accuracy: image embeddings against classes that are named in words."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.utilities import dim_zero_cat

from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.types import DataSpec, LabelSpec

Score = Literal["top1", "top5", "mean_per_class"]
Among = Literal["all", "present"]


class ZeroShotAccuracy(SampleMetric):
    """Share of images whose embedding is nearest to that of their class, which only its name describes.

    A class is the mean of its prompts' embeddings, as CLIP's (Radford et al. 2021, Sec. 3.1.4, arXiv 2103.00020).
    Images without a class, label -1, are left out. Two chances are in the protocol: `chance`, of guessing evenly, and
    `coincidence`, what the given answers would score if they had nothing to do with the images. One answer for all
    images is right as often as its class occurs, which may be far above the former.

    Args:
        label: Entry that holds the classes; its spec names them.
        templates: Prompts, with {} where the name of a class goes.
        score: "top1", "top5", or "mean_per_class", the mean of each class's top-1 accuracy.
        among: Classes to choose from: "all" that the data names, or those "present" among the images.

    Raises:
        ValueError: if a template has no {}, or two are the same.
    """

    higher_is_better = True
    embeddings: list[Tensor]
    labels: list[Tensor]

    def __init__(
        self,
        label: str = "label",
        templates: Sequence[str] = ("{}",),
        score: Score = "top1",
        among: Among = "all",
    ) -> None:
        super().__init__()
        if not templates or len(set(templates)) < len(templates):
            raise ValueError(f"templates is {list(templates)}: expected at least one, and each once")
        for template in templates:
            if "{}" not in template:
                raise ValueError(f"templates has {template!r}: expected {{}} where the name of a class goes")
        self.templates, self.score, self.among = tuple(templates), score, among
        self.inputs = ("image_embedding", label)
        self.names: tuple[str, ...] = ()
        self.classes: Float[Tensor, "k d"] | None = None
        self.num_classes, self.coincidence = 0, 0.0
        # flat and float32, as torchmetrics gathers a process without images
        self.add_state("embeddings", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def name(self) -> str:
        """`zero_shot_top1[label]`, or `zero_shot_top1[label, present]`."""
        return f"zero_shot_{self.score}[{self.inputs[1]}{', present' if self.among == 'present' else ''}]"

    def protocol(self) -> dict[str, str | int | float]:
        """Prompts, number of classes, both chances, and the count behind the last value."""
        most = 5 if self.score == "top5" else 1
        chance = min(1.0, most / self.num_classes) if self.num_classes else 0.0
        chances = {"chance": chance, "coincidence": self.coincidence}
        counts = {"num_classes": self.num_classes, "num_samples": self.num_samples}
        return {"templates": " | ".join(self.templates), "among": self.among, "score": self.score} | counts | chances

    def describe(self, spec: DataSpec) -> None:
        """Learn the names of the classes.

        Raises:
            ValueError: if the data has none, or two are the same.
        """
        label = spec.get(self.inputs[1])
        if not isinstance(label, LabelSpec) or not label.names:
            raise ValueError(f"{self.name()}: spec has {', '.join(spec)}, expected {self.inputs[1]} with names")
        if len(set(label.names)) < len(label.names) or len(label.names) < 2:
            raise ValueError(f"{self.name()}: {self.inputs[1]} names a class twice, or one alone; expected each once")
        self.names = label.names

    def read(self, encode_text: Callable[[Sequence[str]], Tensor]) -> None:
        """Embed the classes; see `SampleMetric`."""
        prompts = [template.replace("{}", name) for name in self.names for template in self.templates]
        embedded = encode_text(prompts).float().unflatten(0, (len(self.names), -1))
        self.classes = F.normalize(F.normalize(embedded, dim=-1).mean(1), dim=-1)

    def update(self, embedding: Float[Tensor, "b d"], label: Int[Tensor, " b"]) -> None:
        """Add embeddings (b, d) of images and their classes (b,), -1 for none."""
        self.embeddings.append(embedding.float().flatten())
        self.labels.append(label.float())

    def compute(self) -> Float[Tensor, ""]:
        """Share in [0, 1] over all processes, a float64 scalar.

        Raises:
            ValueError: if no image has a class, or `read` was not called.
        """
        if self.classes is None:
            raise ValueError(f"{self.name()}: expected read(encode_text) first; it embeds the classes")
        label = dim_zero_cat(self.labels).long() if len(self.labels) else torch.zeros(0)
        kept = label >= 0
        self.num_samples = int(kept.sum())
        if self.num_samples == 0:
            raise ValueError(f"{self.name()}: found 0 images with a class, expected at least 1")
        label, embedding = label[kept], dim_zero_cat(self.embeddings).view(len(label), -1)[kept]
        if int(label.max()) >= len(self.classes):
            raise ValueError(f"{self.name()}: found label {int(label.max())}, expected below {len(self.classes)}")
        candidates = label.unique() if self.among == "present" else torch.arange(len(self.classes), device=label.device)
        self.num_classes = len(candidates)
        similarity = embedding @ self.classes.to(embedding)[candidates].T
        most = similarity.topk(min(5 if self.score == "top5" else 1, len(candidates)), dim=1).indices
        weight = self.weights(label)
        answers = torch.zeros(len(self.classes), dtype=torch.float64, device=label.device)
        answers.index_add_(0, candidates[most].flatten(), torch.ones_like(most, dtype=torch.float64).flatten())
        self.coincidence = float((answers[label] * weight).sum() / weight.sum() / self.num_samples)
        return ((candidates[most] == label[:, None]).any(1) * weight).sum() / weight.sum()

    def weights(self, label: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """What each image counts: as much as any other, or all of a class as much as those of any other."""
        ones = torch.ones(len(label), dtype=torch.float64, device=label.device)
        return ones / label.bincount()[label] if self.score == "mean_per_class" else ones
