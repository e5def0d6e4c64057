"""CDCD told by captions: they reach the prediction, they are trained, and a sample depends on its own caption only."""

from functools import partial

import torch

from mmdiffusion.codecs import GreyLevels
from mmdiffusion.data import Digits
from mmdiffusion.diffusion import Ancestral, MaskAndReplaceSchedule
from mmdiffusion.methods import CDCD
from mmdiffusion.nn import Denoiser, Level, WordConditioner
from tests.helpers import generator

CAPTIONS = ["a handwritten two", "a handwritten seven", "a handwritten two"]


def build():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = CDCD(
            Digits().spec,
            codec=GreyLevels,
            conditioner=partial(WordConditioner, width=8, depth=1, heads=2, vector_width=6),
            denoiser=partial(Denoiser, levels=[Level(8, 1, 2)], embedding_width=16, positions="learned"),
            schedule=MaskAndReplaceSchedule(4),
            sampler=Ancestral(),
            steps=2,
            drop_share=0.3,
        )
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return method


def sample(captions, seeds):
    return build().eval().sample({"caption": captions}, seeds=seeds, guidance=2.0)["image"]


def test_every_weight_of_the_conditioner_is_trained():
    method = build().train()
    method.losses(Digits().rows("train", range(24)), generator())["loss"].backward()
    dead = [name for name, p in method.conditioner.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


def test_a_sample_depends_on_its_own_caption_and_seed():
    together = sample(CAPTIONS, [3, 4, 5])
    assert torch.equal(together[1:2], sample(CAPTIONS[1:2], [4]))
    assert not torch.equal(together[1:2], sample(CAPTIONS[:1], [4]))


def test_only_the_caption_may_be_given():
    assert build().givable == ("caption",)
