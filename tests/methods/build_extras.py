"""A small MT-Diffusion with any extra modalities, and its data, for several test files."""

from functools import partial

import torch

from mmdiffusion.diffusion import CosineSchedule, OneshotDrift, SaturatingDrift
from mmdiffusion.masks import PatchMask
from mmdiffusion.methods import MTDiffusion
from mmdiffusion.methods.extras import Extra
from mmdiffusion.nn import (
    Denoiser,
    IdentityEncoder,
    Level,
    MiddleHead,
    OwnChannels,
    OwnHead,
    OwnToken,
    PaletteEncoder,
    TableEncoder,
    TokensHead,
)
from mmdiffusion.types import FeatureSpec, ImageSpec, LabelSpec, MaskedSpec, SegmentationSpec
from tests.helpers import generator

T = 50
SPEC = {
    "image": ImageSpec(1, 8, 17),
    "label": LabelSpec(10),
    "masked": MaskedSpec(1, 8),
    "segmentation": SegmentationSpec(("a", "b", "c"), 8),
    "feature": FeatureSpec((6,)),
    "feature_map": FeatureSpec((2, 4, 4)),
}
DRIFT = SaturatingDrift(0.5, 0.05)
SETTINGS = {
    "label": Extra(TableEncoder, MiddleHead, DRIFT),
    "masked": Extra(IdentityEncoder, TokensHead, DRIFT, mask=PatchMask(2, 8, 0.2)),
    "segmentation": Extra(PaletteEncoder, TokensHead, DRIFT),
    "feature": Extra(OwnToken, OwnHead, OneshotDrift(1.0)),
    "feature_map": Extra(OwnChannels, OwnHead, OneshotDrift(1.0)),
}
FOUR = ("label", "masked", "feature")


def build(*names, settings=SETTINGS, **changes):
    """A small model of the image and these extras, none of its weights zero."""
    options = {
        "denoiser": partial(Denoiser, levels=[Level(16, 1, 2), Level(16, 1, 2)], embedding_width=32),
        "schedule": CosineSchedule(T),
        "extras": {name: settings[name] for name in names},
        "patch_size": 2,
        "steps": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = MTDiffusion(SPEC, **options | changes)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return method


def batch_of(size=12, seed=0):
    draw = generator(seed)
    image = torch.rand(size, 1, 8, 8, generator=draw) * 2 - 1
    return {
        "image": image,
        "label": torch.arange(size) % 10,
        "masked": PatchMask(2, 8, 0.0)(image, draw),
        "segmentation": torch.randint(3, (size, 8, 8), generator=draw),
        "feature": torch.randn(size, 6, generator=draw),
        "feature_map": torch.randn(size, 2, 4, 4, generator=draw),
        "index": torch.arange(size),
    }
