"""Sizes of experiments: what is counted on the meta device is what a real pass does."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sizes import build, measure, random_batch, report
from mmdiffusion.types import (
    FeatureSpec,
    ImageSpec,
    LabelSpec,
    MaskedSpec,
    MotionFeatureSpec,
    MotionSpec,
    MusicSpec,
    SegmentationSpec,
    TextSpec,
    TokenSpec,
)
from tests.helpers import ROOT, build_method, generator

SPEC = build_method().hparams["spec"]


def test_operations_and_kept_bytes_are_those_of_a_real_pass():
    kept: dict[int, int] = {}

    def keep(x):
        kept[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    method, counter = build_method(), FlopCounterMode(display=False)
    with counter:
        with saved_tensors_hooks(keep, lambda x: x):
            loss = method.losses(random_batch(SPEC, 4), generator())["loss"]
        loss.backward()
    flops, num_bytes = measure(build_method(), SPEC, 4, torch.float32)
    assert flops == counter.get_total_flops() > 0
    assert num_bytes == pytest.approx(sum(kept.values()), rel=0.05)


def test_operations_grow_with_samples_and_half_precision_keeps_less():
    one, two = (measure(build_method(), SPEC, samples, torch.float32) for samples in (8, 16))
    assert two[0] == 2 * one[0]
    assert one[1] < two[1] < 2.1 * one[1]
    assert measure(build_method(), SPEC, 8, torch.bfloat16)[1] < one[1]


def test_report_of_an_experiment():
    cli = build(str(ROOT / "configs" / "cdcd" / "digits.yaml"), ["--data.init_args.batch_size=10"])
    count = sum(p.numel() for p in cli.model.parameters())
    parameters, operations, memory = report(cli, 4)
    assert f"{count / 1e6:.2f} M train" in parameters
    assert "denoiser" in parameters
    assert "a step of 10" in operations
    assert "5 float32 copies" in memory


def test_a_batch_has_the_shapes_of_its_spec():
    spec = {
        "image": ImageSpec(3, 8),
        "label": LabelSpec(10),
        "caption": TextSpec(5),
        "motion": MotionSpec(6, 17, 60),
        "motion_features": MotionFeatureSpec(6, 75, 30),
        "music": MusicSpec(100, 50),
        "music_tokens": TokenSpec(16, (2, 7)),
        "feature": FeatureSpec((4,)),
        "masked": MaskedSpec(3, 8),
        "segmentation": SegmentationSpec(("none", "some"), 8),
    }
    batch = random_batch(spec, 2)
    assert batch.pop("caption") == ["word word word word word"] * 2
    shapes = {name: tuple(values.shape) for name, values in batch.items()}
    assert shapes == {
        "image": (2, 3, 8, 8),
        "label": (2,),
        "motion": (2, 6, 51),
        "motion_features": (2, 6, 75),
        "music": (2, 100),
        "music_tokens": (2, 2, 7),
        "feature": (2, 4),
        "masked": (2, 4, 8, 8),
        "segmentation": (2, 8, 8),
        "index": (2,),
    }
