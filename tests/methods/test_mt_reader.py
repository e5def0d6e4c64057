"""MT-Diffusion that is trained to read alone: no loss of the image, one of the paper's two finetunings."""

import pytest
import torch

from mmdiffusion.nn import OutputHead
from tests.helpers import build_batch, build_method, generator
from tests.methods.build_extras import build

READER = {"image_weight": 0.0, "absent_share": 1.0, "shown_share": 0.0, "weight": 1.0}


def gradients(method, term="loss"):
    method.losses(build_batch(), generator())[term].backward()
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


def test_its_loss_and_gradients_are_the_labels_alone():
    """Those of a cross-entropy that has never met the image's error."""
    found, alone = gradients(build_method(**READER)), gradients(build_method(**READER), "label")
    assert found.keys() >= alone.keys()
    assert alone
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, alone.get(name, torch.zeros_like(gradient)))


def test_every_weight_has_a_gradient_so_that_processes_agree():
    """What nothing reads has one of zero: the denoiser's output under a head on its middle."""
    method = build_method(**READER)
    found = gradients(method)
    assert found.keys() == dict(method.named_parameters()).keys()
    assert not found["network.denoiser.out.weight"].any()


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_another_weight_of_the_image_scales_its_part(weight):
    plain, weighed = (build_method(image_weight=w).losses(build_batch(), generator()) for w in (1.0, weight))
    torch.testing.assert_close(weighed["mse"], plain["mse"])
    torch.testing.assert_close(weighed["loss"] - plain["loss"], (weight - 1) * plain["mse"])


def test_it_reads_images_as_any_model_does():
    reader, joint = build_method(**READER), build_method()
    reader.load_state_dict(joint.state_dict())
    batch = build_batch()
    torch.testing.assert_close(reader.classify(batch), joint.classify(batch))
    assert reader.drawable == ("label",)
    assert set(reader.sample({"image": batch["image"]}, seeds=range(16))) == {"image", "label", "index"}


@pytest.mark.parametrize(("given", "drawn"), [({}, None), ({}, ["image"]), ({"label": torch.zeros(2).long()}, None)])
def test_it_draws_no_images(given, drawn):
    with pytest.raises(ValueError, match="image_weight is 0: expected above 0 in training, for drawing images"):
        build("label", image_weight=0.0).sample(given, seeds=[0, 1], drawn=drawn)


def test_a_head_on_the_output_can_be_trained_alone():
    method = build_method(**READER, head=OutputHead, prediction="clean")
    assert gradients(method)["network.denoiser.out.weight"].any()
