"""Captions through a frozen tower: CDCD trains what stands on it, and knows no more than the caption."""

from functools import partial

import pytest
import torch

from mmdiffusion.codecs import GreyLevels, HashTower
from mmdiffusion.data import Digits
from mmdiffusion.diffusion import Ancestral, MaskAndReplaceSchedule
from mmdiffusion.methods import CDCD, TowerCaptions
from mmdiffusion.nn import Denoiser, Level, TowerConditioner
from mmdiffusion.types import TextSpec
from tests.helpers import generator

SPEC = Digits().spec | {"caption": TextSpec(9)}
CAPTIONS = ["a handwritten two", "words of no vocabulary", "a handwritten two"]
TOWER = partial(HashTower, width=12, num_buckets=64)
LEARNED = partial(TowerConditioner, width=8, depth=1, heads=2, vector_width=6)


def build():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = CDCD(
            SPEC,
            codec=GreyLevels,
            conditioner=partial(TowerCaptions, tower=TOWER, conditioner=LEARNED),
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


def test_it_is_the_conditioner_on_what_the_tower_reads():
    conditioner = build().conditioner
    text = TOWER(SPEC)(CAPTIONS)
    expected = conditioner.learned({"caption_tokens": text.tokens, "caption_mask": text.mask})
    for ours, theirs in zip(conditioner({"caption": CAPTIONS}), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert (conditioner.width, conditioner.context_width) == (6, 8)


def test_dropped_captions_are_as_none():
    conditioner = build().conditioner
    dropped = conditioner({"caption": CAPTIONS}, torch.tensor([False, True, False]))
    for some, none in zip(dropped, conditioner.null(1), strict=True):
        assert some is not None
        assert none is not None
        assert torch.equal(some[1], none[0])
        assert not torch.equal(some[0], none[0])


def test_what_stands_on_the_tower_is_trained_and_the_tower_is_in_no_checkpoint():
    method = build().train()
    method.losses(Digits().rows("train", range(24)), generator())["loss"].backward()
    named = dict(method.conditioner.named_parameters())
    assert not [name for name, parameter in named.items() if parameter.grad is None or not parameter.grad.any()]
    assert not [name for name in method.state_dict() if name.startswith("conditioner.tower")]


def test_a_sample_depends_on_its_own_caption_and_seed():
    def sample(captions, seeds):
        return build().eval().sample({"caption": captions}, seeds=seeds, guidance=2.0)["image"]

    together = sample(CAPTIONS, [3, 4, 5])
    assert torch.equal(together[1:2], sample(CAPTIONS[1:2], [4]))
    assert not torch.equal(together[1:2], sample(CAPTIONS[:1], [4]))
    assert build().givable == ("caption",)


def test_data_without_captions_are_named():
    with pytest.raises(ValueError, match="spec has image: TowerCaptions expects data with a caption, such as CUB"):
        TowerCaptions({"image": SPEC["image"]}, TOWER, LEARNED)


def test_captions_may_come_from_a_cache():
    method = build()
    assert method.conditioner.tower in method.encoders()
    stored = method.conditioner.tower.stored({"caption": CAPTIONS})
    others = {"caption": ["another one"] * len(CAPTIONS)} | stored
    for ours, theirs in zip(method.conditioner(others), method.conditioner({"caption": CAPTIONS}), strict=True):
        assert torch.equal(ours, theirs)
