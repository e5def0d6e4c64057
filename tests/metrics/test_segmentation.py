"""Mean intersection over union against torchmetrics and by hand."""

import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from mmdiffusion.metrics import MeanIntersectionOverUnion
from mmdiffusion.types import LabelSpec, SegmentationSpec
from tests.helpers import generator

NAMES = ("sky", "sea", "sand", "sun")


def measured(*batches, names=NAMES):
    metric = MeanIntersectionOverUnion()
    metric.describe({"segmentation": SegmentationSpec(names, 8)})
    for batch in batches:
        metric.update(*batch)
    return metric.compute().item(), metric


def maps(size=6, classes=4, seed=0):
    true = torch.randint(classes, (size, 8, 8), generator=generator(seed))
    drawn = torch.where(torch.rand(true.shape, generator=generator(seed + 1)) < 0.7, true, true.roll(1, 2))
    return drawn, true


def test_it_equals_torchmetrics():
    first, second = maps(), maps(3, seed=5)
    value, metric = measured(first, second)
    drawn, true = (torch.cat(parts) for parts in zip(first, second, strict=True))
    assert value == pytest.approx(multiclass_jaccard_index(drawn, true, 4).item(), rel=1e-6)
    assert metric.protocol()["num_samples"] == 9
    assert metric.protocol()["classes"] == "sky, sea, sand, sun"


def test_by_hand_with_a_class_that_never_occurs():
    true, drawn = torch.tensor([[[0, 0], [1, 1]]]), torch.tensor([[[0, 1], [1, 1]]])
    value, _ = measured((drawn, true))
    assert value == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_equal_maps_agree_and_reset_forgets():
    value, metric = measured((maps()[1], maps()[1]))
    assert value == 1
    metric.reset()
    metric.update(*maps(seed=9))
    assert metric.compute().item() == pytest.approx(measured(maps(seed=9))[0])


def test_what_is_missing_is_named():
    metric = MeanIntersectionOverUnion()
    assert (metric.name(), metric.inputs) == ("mean_iou[segmentation]", ("segmentation", "reference_segmentation"))
    with pytest.raises(ValueError, match=r"mean_iou\[segmentation\]: expected describe\(spec\) first"):
        metric.update(*maps())
    with pytest.raises(ValueError, match=r"mean_iou\[segmentation\]: spec has label, expected segmentation"):
        metric.describe({"label": LabelSpec(3)})
    with pytest.raises(ValueError, match="found 0 samples"):
        measured()
