"""DiffDis draws from its caption and seed alone, guided or not, without its text stream."""

import pytest
import torch

from mmdiffusion.callbacks.draws import Draw, check_draws
from tests.methods.build_diffdis import PROMPTS, build


def test_a_draw_depends_on_its_own_caption_and_seed():
    method = build().eval()
    together = method.sample({"caption": PROMPTS[:3]}, seeds=[3, 4, 5], guidance=2.0)
    alone = method.sample({"caption": PROMPTS[1:2]}, seeds=[4], guidance=2.0)
    torch.testing.assert_close(together["image"][1:2], alone["image"], atol=1e-5, rtol=1e-5)
    assert together["image"].abs().max() <= 1
    other = method.sample({"caption": PROMPTS[:1]}, seeds=[4], guidance=2.0)
    assert not torch.allclose(together["image"][1:2], other["image"])


def test_the_text_stream_takes_no_part_in_drawing():
    first, second = build().eval(), build().eval()
    with torch.no_grad():
        for parameter in second.alignment_parameters():
            parameter.fill_(torch.nan)
    drawn = [m.sample({"caption": PROMPTS}, seeds=range(10), guidance=2.0)["image"] for m in (first, second)]
    assert torch.equal(*drawn)


def test_guidance_extends_from_the_draw_without_a_caption():
    method = build(steps=1).eval()
    images = [method.sample({"caption": PROMPTS}, seeds=range(10), guidance=g)["image"] for g in (0.0, 1.0)]
    alone = method.sample({}, seeds=range(10))["image"]
    torch.testing.assert_close(images[0], alone)
    assert not torch.allclose(images[1], alone)


@pytest.mark.parametrize("sampler", ["ddpm", "heun"])
def test_other_samplers_draw(sampler):
    image = build(sampler=sampler).eval().sample({"caption": PROMPTS}, seeds=range(10))["image"]
    assert image.shape == (10, 1, 8, 8)
    assert image.isfinite().all()


# Mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "request_", "message"),
    [
        ({"drop_caption": 0.0}, {"guidance": 2.0}, "drop_caption is 0"),
        ({"generation_weight": 0.0}, {}, "generation_weight is 0"),
        ({}, {"drawn": ["caption"]}, "drawn is 'caption'"),
        ({}, {"seeds": [0]}, "caption has 10 entries, seeds has 1"),
    ],
)
def test_impossible_draws_are_named(changes, request_, message):
    with pytest.raises(ValueError, match=message):
        build(**changes).sample({"caption": PROMPTS}, **{"seeds": range(10)} | request_)


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"drop_caption": 0.0}, []),
        ({"drop_caption": 0.0, "guidance": 2.0}, ["caption"]),
        ({"generation_weight": 0.0}, []),
    ],
)
def test_impossible_draws_are_named_before_a_training(changes, given):
    with pytest.raises(ValueError, match=f"draws.x: {next(iter(changes))} is 0"):
        check_draws({"x": Draw(given)}, build(**changes))


def test_an_empty_caption_is_named():
    with pytest.raises(ValueError, match="caption '' has 0 words"):
        build().sample({"caption": [""]}, seeds=[0])
