"""Terms of the negative evidence bound against closed forms (MT-Diffusion, Theorem 1, arXiv 2407.17571)."""

import math
from typing import NamedTuple

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mmdiffusion.diffusion import AggregatedDiffusion, CosineSchedule, LinearDrift, LinearSchedule
from mmdiffusion.diffusion.bound import gaussian_kl, prior_kl
from tests.diffusion.gaussian_oracles import normal

# Closed forms --------------------------------------------------------------------------------------------------


def test_gaussian_kl_is_that_of_torch():
    means, variances = (normal(0, 5, 3, 2), normal(1, 5, 3, 2)), (normal(2, 5, 3, 2).exp(), normal(3, 5, 3, 2).exp())
    q, p = (Normal(mean, variance.sqrt()) for mean, variance in zip(means, variances, strict=True))
    kl = gaussian_kl(means[0], variances[0], means[1], variances[1])
    torch.testing.assert_close(kl, kl_divergence(q, p).sum((1, 2)), atol=1e-10, rtol=0)


def test_gaussian_kl_counts_a_shared_variance_once_a_dimension():
    mean_q, mean_p, variance_q, variance_p = (
        normal(4, 5, 3),
        normal(5, 5, 3),
        normal(6, 5, 1).exp(),
        normal(7, 5, 1).exp(),
    )
    expected = gaussian_kl(mean_q, variance_q.expand(5, 3), mean_p, variance_p.expand(5, 3))
    torch.testing.assert_close(gaussian_kl(mean_q, variance_q, mean_p, variance_p), expected, atol=1e-12, rtol=0)


def test_gaussian_kl_of_one_variance_is_the_scaled_squared_distance():
    mean_q, mean_p, variance = normal(8, 5, 3), normal(9, 5, 3), torch.full((1,), 0.3, dtype=torch.float64)
    expected = (mean_q - mean_p).square().sum(1) / (2 * 0.3)
    torch.testing.assert_close(gaussian_kl(mean_q, variance, mean_p, variance), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("schedule", [LinearSchedule, CosineSchedule])
def test_prior_kl_of_an_aggregated_state_is_its_closed_form(schedule):
    alpha_bar = float(schedule(50).alpha_bar()[-1])
    process = AggregatedDiffusion(schedule(50), {"x": LinearDrift(0.8)}, dtype=torch.float64)
    clean, e = normal(10, 4, 6), normal(11, 4, 6)
    mean = math.sqrt(alpha_bar) * (clean + 0.8 * e)
    expected = 0.5 * (6 * (1 - alpha_bar) + mean.square().sum(1) - 6 - 6 * math.log(1 - alpha_bar))
    end = process.corrupt(clean, torch.full((4,), 50), torch.zeros_like(clean), {"x": e})
    torch.testing.assert_close(prior_kl(process, end), expected, atol=1e-12, rtol=0)


# Terms of the diffusion loss -----------------------------------------------------------------------------------


class Terms(NamedTuple):
    """One state for each t = 2..40, the truth about it and an estimate."""

    process: AggregatedDiffusion
    time: torch.Tensor
    alpha: torch.Tensor
    alpha_bar: torch.Tensor
    weights: torch.Tensor
    noisy: torch.Tensor
    clean: torch.Tensor
    noise: torch.Tensor
    encoding: torch.Tensor

    def model_mean(self, noise, encoding):
        """Mean of the model's step: it estimates the noise and the encoding."""
        free = self.process.drift_free(self.noisy, self.time, {"x": encoding})
        clean = self.process.predict_x0(free, self.time, noise)
        return self.process.posterior(self.noisy, clean, self.time, self.time - 1, {"x": encoding})

    def scale(self):
        """c_t = (1 - alpha_t) / sqrt(alpha_t (1 - alpha_bar_t))."""
        return (1 - self.alpha) / (self.alpha * (1 - self.alpha_bar)).sqrt()


@pytest.fixture(params=[LinearSchedule, CosineSchedule], ids=["linear_schedule", "cosine_schedule"])
def terms(request):
    alpha_bar, time = request.param(40).alpha_bar(), torch.arange(2, 41)
    drift = 0.6 * torch.linspace(0, 1, 41, dtype=torch.float64) * alpha_bar.sqrt()
    process = AggregatedDiffusion(request.param(40), {"x": LinearDrift(0.6)}, "noise", torch.float64)
    clean, noise, e = (normal(seed, 39, 3) for seed in (12, 13, 14))
    now, alpha = alpha_bar[time, None], (alpha_bar[time] / alpha_bar[time - 1])[:, None]
    weights = drift[time, None] / alpha.sqrt() - drift[time - 1, None]
    noisy = now.sqrt() * clean + drift[time, None] * e + (1 - now).sqrt() * noise
    return Terms(process, time, alpha, now, weights, noisy, clean, noise, e)


def by_hand(difference, variance, model_variance):
    """L1_t = [d (r - 1 - log r) + |difference|^2 / model_variance] / 2, r the ratio of the variances, d = 3."""
    ratio = variance / model_variance
    squares = difference.square().sum(1, keepdim=True) / model_variance
    return ((3 * (ratio - 1 - ratio.log()) + squares) / 2)[:, 0]


def test_distance_of_the_means_is_that_of_noises_and_encodings(terms):
    noise, e = normal(15, 39, 3), normal(16, 39, 3)
    mean, _ = terms.process.posterior(terms.noisy, terms.clean, terms.time, terms.time - 1, {"x": terms.encoding})
    expected = terms.scale() * (noise - terms.noise) + terms.weights * (e - terms.encoding)
    torch.testing.assert_close(mean - terms.model_mean(noise, e)[0], expected, atol=1e-9, rtol=1e-9)


def test_kl_of_a_step_is_the_weighted_simple_loss_when_the_encoding_is_known(terms):
    noise = normal(17, 39, 3)
    mean, variance = terms.process.posterior(
        terms.noisy, terms.clean, terms.time, terms.time - 1, {"x": terms.encoding}
    )
    model_mean, _ = terms.model_mean(noise, terms.encoding)
    expected = (terms.scale() ** 2 / (2 * variance) * (noise - terms.noise) ** 2).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, variance, model_mean, variance), expected, atol=0, rtol=1e-8)


def test_kl_of_a_step_with_another_variance_does_not_see_a_shared_encoding(terms):
    """A learned variance is trained as in plain diffusion when both means hold the same encoding."""
    clean, ratio = normal(18, 39, 3), normal(19, 39, 1).exp()
    before = terms.alpha_bar / terms.alpha
    posterior_variance = (1 - terms.alpha) * (1 - before) / (1 - terms.alpha_bar)
    difference = before.sqrt() * (1 - terms.alpha) / (1 - terms.alpha_bar) * (terms.clean - clean)
    expected = by_hand(difference, posterior_variance, ratio * posterior_variance)
    for noisy, encodings in (
        (terms.noisy, {"x": terms.encoding}),
        (terms.process.drift_free(terms.noisy, terms.time, {"x": terms.encoding}), {}),
    ):
        mean, variance = terms.process.posterior(noisy, terms.clean, terms.time, terms.time - 1, encodings)
        model_mean, _ = terms.process.posterior(noisy, clean, terms.time, terms.time - 1, encodings)
        kl = gaussian_kl(mean, variance, model_mean, ratio * posterior_variance)
        torch.testing.assert_close(kl, expected, atol=0, rtol=1e-8)


def test_kl_of_a_step_with_another_variance_and_a_guessed_encoding_is_its_closed_form(terms):
    """The forward step's variance in place of the posterior's, the other choice of Ho et al. 2020, Sec. 3.2."""
    noise, e = normal(20, 39, 3), normal(21, 39, 3)
    before = terms.alpha_bar / terms.alpha
    posterior_variance = (1 - terms.alpha) * (1 - before) / (1 - terms.alpha_bar)
    difference = terms.scale() * (noise - terms.noise) + terms.weights * (e - terms.encoding)
    mean, variance = terms.process.posterior(
        terms.noisy, terms.clean, terms.time, terms.time - 1, {"x": terms.encoding}
    )
    kl = gaussian_kl(mean, variance, terms.model_mean(noise, e)[0], 1 - terms.alpha)
    torch.testing.assert_close(kl, by_hand(difference, posterior_variance, 1 - terms.alpha), atol=0, rtol=1e-8)
