"""Embeddings of real images and their captions, and of images that should tell nothing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from mmdiffusion.data.base import DataModule, Split
from mmdiffusion.methods.base import Method
from mmdiffusion.methods.recognition import Recognition
from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.types import Batch

EMBEDDINGS = ("image_embedding", "text_embedding")
OWN, BLANK, OTHER = "recognise", "blank images", "other images"
COLUMNS = (OWN, BLANK, OTHER)
"""Images as they are; and the controls: all grey, and those of other samples. A leak shows there."""


def readers(metrics: Iterable[SampleMetric]) -> list[SampleMetric]:
    """The metrics that read embeddings."""
    return [metric for metric in metrics if set(EMBEDDINGS) & set(metric.inputs)]


def check(metrics: Sequence[SampleMetric], method: Method) -> None:
    """Check that a method can classify or embed what is to be measured, and was trained for it.

    Raises:
        ValueError: naming the metric, or what the method was not trained for.
    """
    for metric in metrics:
        if "prediction" in metric.inputs:
            check_classes(metric, method)
    for metric in readers(metrics):
        if not isinstance(method, Recognition):
            raise ValueError(f"metrics has {metric.name()}: {type(method).__name__} embeds no images")
        method.check_recognition(None)


def check_classes(metric: SampleMetric, method: Method) -> None:
    """Check that a method can read the class of an image: a request like any other, for the label of a given image.

    Args:
        metric: Reads what the method says.
        method: Is to say it.

    Raises:
        ValueError: naming the metric, and what the method lacks or was not trained for.
    """
    if isinstance(method, Recognition) or not getattr(method, "classify", None):
        kind = type(method).__name__
        raise ValueError(f"metrics has {metric.name()}: {kind} does not classify without words, see ZeroShotAccuracy")
    try:
        method.check_request(["image"], ["label"])
    except ValueError as error:
        raise ValueError(
            f"metrics has {metric.name()}, which has the method read the label off images: {error}; or leave the "
            "metric out"
        ) from error


def embedded(
    method: Recognition,
    batches: Iterable[Batch],
    column: str,
    data: DataModule,
    split: Split,
    precision: Callable[[], AbstractContextManager],
) -> Iterator[Batch]:
    """Batches with the embeddings of their images, and of their captions where they have any.

    Args:
        method: Embeds; it is handed images and indices, no labels and no captions.
        batches: Real data.
        column: Which images it is shown.
        data: The data module, for images of other samples: those of one order of the whole split, whatever the
            batches and processes.
        split: Where they come from.
        precision: Makes the context in which it runs.
    """
    order = torch.randperm(data.num_rows(split), generator=torch.Generator().manual_seed(0))
    for batch in batches:
        image, index, caption = batch["image"], batch["index"], batch.get("caption")
        assert isinstance(image, Tensor)
        assert isinstance(index, Tensor)
        shown = torch.zeros_like(image) if column == BLANK else image
        if column == OTHER:
            shown = data.rows(split, order[index].tolist(), ["image"])["image"]
        with precision():
            made: Batch = {"image_embedding": method.encode_image({"image": shown, "index": index}).cpu()}
            if caption is not None:
                made["text_embedding"] = method.encode_text([str(words) for words in caption]).cpu()
        yield batch | made
