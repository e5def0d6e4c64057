"""Representation guidance: the image, guided by what is drawn with it in channels or a token of its own."""

import pytest
import torch

from mmdiffusion.diffusion import OneshotDrift
from mmdiffusion.methods.extras import Extra
from mmdiffusion.methods.joint_predictor import JointPredictor
from mmdiffusion.methods.joint_requests import JointRequest
from mmdiffusion.nn import OwnHead, OwnToken
from tests.helpers import generator
from tests.methods.build_extras import SETTINGS, batch_of, build

OWN = ("feature", "feature_map")


def predicted(method, drawn, scale, known=None, guidance=1.0):
    known = known or {}
    noisy, time = torch.randn(4, *method.space.shape, generator=generator(3)), torch.full((4,), 20)
    predictor = JointPredictor(method, known, JointRequest(("image", *drawn), 4, guidance, 0.0, scale), 4)
    with torch.no_grad():
        return noisy, time, *predictor(noisy, time)


@pytest.mark.parametrize("guided_by", ["feature", "feature_map"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_it_moves_the_image_away_from_what_is_predicted_without_the_representation(guided_by, guidance):
    method = build("label", guided_by)
    known = {"label": batch_of(4)["label"]}
    noisy, time, plain, encodings = predicted(method, [guided_by], 1.0, known, guidance)
    moved = predicted(method, [guided_by], 2.5, known, guidance)[2]
    with torch.no_grad():
        free = noisy - method.diffusion.drift(time, {guided_by: encodings[guided_by]}, noisy)
        without, _ = method.network(free, time, method.network.tell(known, (), 4))
        told, _ = method.network(noisy, time, method.network.tell(known, [guided_by], 4))
    torch.testing.assert_close(moved[:, :1] - plain[:, :1], 1.5 * (told - without), atol=1e-5, rtol=1e-4)
    assert (told - without).abs().max() > 1e-2
    assert torch.equal(moved[:, 1:], plain[:, 1:]), "only the image is guided"


def test_what_has_no_channels_of_its_own_stays_as_it_is_drawn():
    method = build("label", "feature")
    noisy, time, plain, encodings = predicted(method, ["label", "feature"], 1.0)
    moved = predicted(method, ["label", "feature"], 2.0)[2]
    with torch.no_grad():
        free = noisy - method.diffusion.drift(time, {"feature": encodings["feature"]}, noisy)
        without, _ = method.network(free, time, method.network.tell({}, ["label"], 4))
    torch.testing.assert_close(moved[:, :1], 2 * plain[:, :1] - without, atol=1e-5, rtol=1e-4)


def test_one_follows_the_model_and_costs_nothing():
    method, calls = build(*OWN), []
    method.network.denoiser.register_forward_hook(lambda *_: calls.append(1))
    samples = [method.sample({}, seeds=range(2), **asked) for asked in ({}, {"representation_guidance": 1.0})]
    assert len(calls) == 2 * method.steps
    assert torch.equal(samples[0]["image"], samples[1]["image"])
    guided = method.sample({}, seeds=range(2), representation_guidance=2.0)
    assert len(calls) == 4 * method.steps
    assert not torch.equal(guided["image"], samples[0]["image"])


def test_the_method_s_own_acts_where_there_is_something_to_guide_by():
    method = build(*OWN, representation_guidance=2.0)
    explicit = build(*OWN).sample({}, seeds=range(2), representation_guidance=2.0)
    assert torch.equal(method.sample({}, seeds=range(2))["image"], explicit["image"])
    known = {name: batch_of(2)[name] for name in OWN}
    plain = build(*OWN).sample(known, seeds=range(2))
    assert torch.equal(method.sample(known, seeds=range(2))["image"], plain["image"])
    assert method.protocol()["representation_guidance"] == 2.0


def test_nothing_to_guide_by_is_named():
    with pytest.raises(
        ValueError, match=r"representation_guidance is 2\.0: expected None, as nothing is drawn with the"
    ):
        build("label").sample({}, seeds=[0], representation_guidance=2.0)
    with pytest.raises(ValueError, match=r"representation_guidance is 2\.0: expected None"):
        build("feature").sample({"feature": torch.zeros(1, 6)}, seeds=[0], representation_guidance=2.0)


def test_a_model_that_never_went_without_cannot_be_guided():
    settings = SETTINGS | {"feature": Extra(OwnToken, OwnHead, OneshotDrift(1.0), absent_share=0.0)}
    method = build("feature", settings=settings)
    with pytest.raises(ValueError, match=r"absent_share of feature is 0: expected above 0 .* for representation guid"):
        method.sample({}, seeds=[0], representation_guidance=2.0)
