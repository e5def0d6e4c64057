"""Guidance by the head of any modality: its gradient, the log-probabilities and the variances these need."""

import pytest
import torch

from mmdiffusion.diffusion import CosineSchedule
from mmdiffusion.methods.joint_predictor import JointPredictor
from mmdiffusion.methods.joint_requests import JointRequest
from tests.helpers import generator
from tests.methods.build_extras import FOUR, T, batch_of, build


@pytest.mark.parametrize("name", [*FOUR, "segmentation", "feature_map"])
def test_guidance_by_any_head_adds_its_gradient_to_the_score(name):
    method, batch, time = build(name), batch_of(4), torch.full((4,), 20)
    extra, noisy = method.extra(name), torch.randn(4, *method.space.shape, generator=generator(3))
    known = {name: batch[name]}
    plain, guided = (
        JointPredictor(method, known, JointRequest(("image",), 4, 1.0, scale, 1.0), 4)(noisy, time)
        for scale in (0.0, 2.0)
    )
    free = method.diffusion.drift_free(noisy, time, plain[1]).requires_grad_()
    output = method.network(free, time, method.network.tell({}, (), 4))[1][name]
    (gradient,) = torch.autograd.grad(extra.log_probability(output, batch[name], time / T).sum(), free)
    before, after = (method.diffusion.predict_noise(noisy, time, one[0])[:, :1] for one in (plain, guided))
    sigma = (1 - CosineSchedule(T).alpha_bar()[20]).sqrt().float()
    assert gradient[:, :1].abs().max() > 1e-3
    torch.testing.assert_close(after - before, -2 * sigma * gradient[:, :1], atol=1e-5, rtol=1e-3)


def test_the_log_probability_of_a_map_sums_over_its_pixels():
    extra = build("segmentation").extra("segmentation")
    output, value = torch.randn(2, 3, 8, 8, generator=generator()), torch.randint(3, (2, 8, 8), generator=generator())
    expected = torch.distributions.Categorical(logits=output.movedim(1, -1)).log_prob(value).sum((1, 2))
    torch.testing.assert_close(extra.log_probability(output, value, torch.ones(2)), expected)


def test_the_residual_variance_follows_the_error_by_part_of_the_time():
    extra = build("feature").extra("feature").train()
    share = torch.tensor([0.01, 0.02, 0.99, 1.0])
    for _ in range(2000):
        extra.remember(torch.tensor([1.0, 3.0, 8.0, 80.0]), share, torch.tensor([True, True, True, False]))
    assert extra.variance[0].item() == pytest.approx(2.0, rel=1e-3)
    assert extra.variance[-1].item() == pytest.approx(8.0, rel=1e-3)
    assert torch.equal(extra.variance[1:-1], torch.ones(18)), "nothing was seen of other times"
    output, value = torch.randn(4, 6, generator=generator()), torch.randn(4, 6, generator=generator(1))
    deviation = torch.tensor([2.0, 2.0, 8.0, 8.0]).sqrt()[:, None]
    expected = torch.distributions.Normal(output, deviation).log_prob(value).sum(1)
    torch.testing.assert_close(extra.log_probability(output, value, share), expected, rtol=1e-3, atol=1e-3)


def test_the_variance_is_learned_in_training_only():
    method = build("feature")
    method.eval().losses(batch_of(), generator())
    assert torch.equal(method.extra("feature").variance, torch.ones(20))
    method.train().losses(batch_of(64), generator())
    assert not torch.equal(method.extra("feature").variance, torch.ones(20))
