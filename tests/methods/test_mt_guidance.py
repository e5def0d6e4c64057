"""MT-Diffusion guided: without and with its head, linearly, by Bayes' rule, and at what cost."""

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.diffusion import CosineSchedule, LinearDrift, NoDrift
from mmdiffusion.methods.joint_predictor import JointPredictor
from mmdiffusion.methods.joint_requests import JointRequest
from tests.helpers import T, build_batch, build_method, generator


def count_calls(method):
    calls = []
    method.network.denoiser.register_forward_hook(lambda *_: calls.append(1))
    return calls


def predictor(method, label, guidance=1.0, head_guidance=0.0):
    """The prediction for given labels."""
    request = JointRequest(("image",), 4, guidance, head_guidance, 1.0)
    return JointPredictor(method, {"label": label}, request, len(label))


# With and without the label ------------------------------------------------------------------------------------


def test_guidance_zero_is_the_unconditional_prediction_of_the_drift_free_state():
    method, label, time = build_method(drift=LinearDrift(0.5)), torch.arange(4), torch.full((4,), 30)
    noisy = build_batch(4)["image"]
    prediction, encodings = predictor(method, label, 0.0)(noisy, time)
    free = method.diffusion.drift_free(noisy, time, encodings)
    assert not torch.equal(free, noisy)
    assert torch.equal(prediction, method.network(free, time, method.network.tell({}, (), 4))[0])


def test_guidance_zero_ignores_the_shown_label():
    method, label = build_method(drift=NoDrift()), torch.tensor([1, 5])
    given = method.sample({"label": label}, seeds=[0, 1], guidance=0.0)["image"]
    assert torch.equal(given, method.sample({}, seeds=[0, 1], drawn=["image"])["image"])
    assert not torch.equal(given, method.sample({"label": label}, seeds=[0, 1], guidance=1.0)["image"])


def test_guidance_is_linear_in_drift_free_coordinates():
    method, label, time = build_method(), torch.arange(4), torch.full((4,), 20)
    noisy = build_batch(4)["image"]
    none, one, two = (predictor(method, label, g)(noisy, time)[0] for g in (0.0, 1.0, 2.0))
    torch.testing.assert_close(two - none, 2 * (one - none), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("guidance", "head_guidance", "calls"), [(1.0, 0.0, 1), (0.0, 0.0, 2), (2.0, 0.0, 2), (1.0, 1.0, 2), (0.0, 1.0, 2)]
)
def test_network_calls_a_step(guidance, head_guidance, calls):
    method = build_method()
    count = count_calls(method)
    method.sample({"label": torch.arange(2)}, seeds=[0, 1], guidance=guidance, head_guidance=head_guidance)
    assert len(count) == calls * method.steps


# By the head ---------------------------------------------------------------------------------------------------


def test_bayes_rule_through_the_shipped_guidance(monkeypatch):
    """With exact networks for Gaussian classes, head guidance of 1 on the unconditional is the conditional."""
    method, label, t, deviation = build_method(), torch.arange(4), 30, 0.3
    time, centres = torch.full((4,), t), torch.randn(10, 64, generator=generator()).mul(0.2)
    alpha_bar = CosineSchedule(T).alpha_bar()[t]
    signal, sigma = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
    spread = (signal * deviation) ** 2 + sigma**2

    def velocity(free, clean):
        return (signal * (free - signal * clean) / sigma - sigma * clean).reshape(-1, 1, 8, 8)

    def clean_of(free, chosen):
        return chosen + signal * deviation**2 / spread * (free - signal * chosen)

    def exact(noisy, time, told):
        if torch.equal(told[0].vector, method.network.tell({}, (), 4)[0].vector):
            free = noisy.flatten(1)
            logits = -(free[:, None] - signal * centres).square().sum(-1) / (2 * spread)
            mean = torch.einsum("bk,bkd->bd", logits.softmax(1), clean_of(free[:, None], centres))
            return velocity(free, mean), {"label": logits}
        encodings = {"label": method.extra("label").encode(label)}
        free = method.diffusion.drift_free(noisy, time, encodings).flatten(1)
        return velocity(free, clean_of(free, centres[label])), {"label": torch.zeros(len(noisy), 10)}

    monkeypatch.setattr(method.network, "forward", exact)
    noisy = build_batch(4)["image"]
    shown, guided, alone = (
        predictor(method, label, guidance, head)(noisy, time)[0]
        for guidance, head in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
    )
    assert (alone - shown).abs().max() > 0.1
    torch.testing.assert_close(guided, shown, atol=1e-5, rtol=1e-4)


def test_head_guidance_moves_the_sample_by_the_gradient_of_the_head():
    method, label, time = build_method(), torch.arange(4), torch.full((4,), 20)
    noisy = build_batch(4)["image"]
    plain, encodings = predictor(method, label)(noisy, time)
    guided, _ = predictor(method, label, head_guidance=2.0)(noisy, time)
    free = method.diffusion.drift_free(noisy, time, encodings).requires_grad_()
    logits = method.network(free, time, method.network.tell({}, (), 4))[1]["label"]
    (gradient,) = torch.autograd.grad(-F.cross_entropy(logits, label, reduction="sum"), free)
    before = method.diffusion.predict_noise(noisy, time, plain)
    after = method.diffusion.predict_noise(noisy, time, guided)
    sigma = (1 - CosineSchedule(T).alpha_bar()[20]).sqrt().float()
    torch.testing.assert_close(after - before, -2 * sigma * gradient, atol=1e-5, rtol=1e-3)


def test_head_guidance_works_where_lightning_evaluates():
    method, label = build_method(), torch.tensor([1, 2])
    expected = method.sample({"label": label}, seeds=[0, 1], head_guidance=1.0)["image"]
    with torch.inference_mode():
        drawn = method.sample({"label": label + 0}, seeds=[0, 1], head_guidance=1.0)["image"]
        assert torch.equal(drawn, expected)
