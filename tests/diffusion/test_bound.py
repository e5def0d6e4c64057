"""The negative evidence bound, term by term and against exact evidence (MT-Diffusion, Theorem 1, arXiv 2407.17571)."""

import math
import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mmdiffusion.diffusion import (
    AggregatedDiffusion,
    CosineSchedule,
    GaussianDiffusion,
    LinearDrift,
    LinearSchedule,
    WeightedDrift,
    bits_per_dim,
)
from mmdiffusion.diffusion.bound import decoder_nll, gaussian_kl, prior_kl
from mmdiffusion.diffusion.gaussian import PredictionKind

KINDS = ["noise", "clean", "velocity"]


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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
    clean, scale = normal(18, 39, 3), normal(19, 39, 1).exp()
    kls = []
    for process, noisy, encodings in (
        (terms.process, terms.noisy, {"x": terms.encoding}),
        (terms.process, terms.process.drift_free(terms.noisy, terms.time, {"x": terms.encoding}), {}),
    ):
        mean, variance = process.posterior(noisy, terms.clean, terms.time, terms.time - 1, encodings)
        model_mean, _ = process.posterior(noisy, clean, terms.time, terms.time - 1, encodings)
        kls.append(gaussian_kl(mean, variance, model_mean, scale * variance))
    torch.testing.assert_close(kls[0], kls[1], atol=0, rtol=1e-8)


# A linear-Gaussian model, whose evidence is known ---------------------------------------------------------------


def log_density(value, mean, variance):
    return -0.5 * (np.log(2 * np.pi * variance) + (value - mean) ** 2 / variance)


class Toy:
    """Scalar chain with random linear reverse steps and a random linear head of x at every step.

    p: z_T ~ N(0, 1), z_{t-1} | z_t ~ N(a_t z_t + b_t, s_t), x | z_t ~ N(g_t z_t + h_t, r_t).
    """

    def __init__(self, seed):
        random = np.random.default_rng(seed)
        self.T = T = int(random.integers(2, 9))
        drift = WeightedDrift((0.5 * random.standard_normal(T)).tolist())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="aggregation of .* the prior", category=UserWarning)
            self.process = AggregatedDiffusion(CosineSchedule(T), {"x": drift}, "noise", torch.float64)
        self.clean, self.x, self.encoding = random.standard_normal(3)
        self.a, self.b, self.g, self.h = random.standard_normal((4, T + 1))
        self.s, self.r = np.exp(0.5 * random.standard_normal((2, T + 1)))
        nodes, weights = np.polynomial.hermite_e.hermegauss(4)
        self.nodes, self.node_weights = torch.tensor(nodes)[:, None], weights / weights.sum()

    def like(self, value, state):
        return torch.full_like(state, value)

    def steps(self, state, t):
        return torch.full((len(state),), t)

    def noisy(self, t):
        """Nodes of z_t under q; expectations of squares are exact sums over them."""
        clean, e = self.like(self.clean, self.nodes), {"x": self.like(self.encoding, self.nodes)}
        return self.process.corrupt(clean, self.steps(clean, t), self.nodes, e)

    def mean_over(self, values):
        return float(self.node_weights @ np.asarray(values).reshape(-1))

    def terms(self):
        """L0, L1 (sum over t > 1), L2 (by t = 1..T) and L3 of Theorem 1 with the package's kl and posterior."""
        encodings = {"x": self.like(self.encoding, self.nodes)}
        clean = self.like(self.clean, self.nodes)
        end = self.process.corrupt(clean, self.steps(clean, self.T), torch.zeros_like(clean), encodings)
        prior, chain = float(prior_kl(self.process, end)[0]), 0.0
        for t in range(2, self.T + 1):
            noisy, time = self.noisy(t), self.steps(clean, t)
            mean, variance = self.process.posterior(noisy, clean, time, time - 1, encodings)
            variance_p = torch.tensor([[self.s[t]]])
            chain += self.mean_over(gaussian_kl(mean, variance, self.a[t] * noisy + self.b[t], variance_p))
        heads = [
            self.mean_over(-log_density(self.x, self.g[t] * self.noisy(t) + self.h[t], self.r[t]))
            for t in range(1, self.T + 1)
        ]
        last = self.mean_over(-log_density(self.clean, self.a[1] * self.noisy(1) + self.b[1], self.s[1]))
        return prior, chain, np.array(heads), last

    def model(self):
        """Mean and covariance of (z_0, .., z_T) under p."""
        mean, covariance = np.zeros(self.T + 1), np.zeros((self.T + 1, self.T + 1))
        covariance[-1, -1] = 1
        for t in range(self.T, 0, -1):
            mean[t - 1] = self.a[t] * mean[t] + self.b[t]
            covariance[t - 1, t:] = covariance[t:, t - 1] = self.a[t] * covariance[t, t:]
            covariance[t - 1, t - 1] = self.a[t] ** 2 * covariance[t, t] + self.s[t]
        return mean, covariance

    def observed(self, copies):
        """p of z and of what is seen, z_0 and x as the head gives it at each t in `copies`: all Gaussian."""
        mean, covariance = self.model()
        rows = np.zeros((1 + len(copies), self.T + 1))
        rows[0, 0] = 1
        rows[np.arange(1, 1 + len(copies)), copies] = self.g[copies]
        shift, noise = np.array([0.0, *self.h[copies]]), np.diag([0.0, *self.r[copies]])
        seen = np.array([self.clean, *[self.x] * len(copies)])
        return mean, covariance, rows, seen - rows @ mean - shift, rows @ covariance @ rows.T + noise

    def log_evidence(self, copies):
        *_, residual, covariance = self.observed(copies)
        size = len(residual) * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1]
        return -0.5 * (size + residual @ np.linalg.solve(covariance, residual))

    def chain(self):
        """Mean and covariance of z_1..z_T under q, from the kernel probed at two states."""
        mean, covariance = np.zeros(self.T + 1), np.zeros((self.T + 1, self.T + 1))
        mean[0] = self.clean
        states = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        encodings = {"x": self.like(self.encoding, states)}
        for t in range(1, self.T + 1):
            moved, variance = self.process.kernel(states, self.steps(states, t), self.steps(states, t - 1), encodings)
            offset, slope = float(moved[0]), float(moved[1] - moved[0])
            mean[t] = slope * mean[t - 1] + offset
            covariance[t, :t] = covariance[:t, t] = slope * covariance[t - 1, :t]
            covariance[t, t] = slope**2 * covariance[t - 1, t - 1] + float(variance[0])
        return mean[1:], covariance[1:, 1:]

    def gap(self):
        """KL(q(z_1..z_T | z_0, X) || p(z_1..z_T | z_0, all copies of x)), both Gaussian."""
        mean, covariance, rows, residual, seen = self.observed(np.arange(1, self.T + 1))
        gain = np.linalg.solve(seen, rows @ covariance).T
        mean_p, covariance_p = (mean + gain @ residual)[1:], (covariance - gain @ rows @ covariance)[1:, 1:]
        mean_q, covariance_q = self.chain()
        difference = mean_p - mean_q
        logs = np.linalg.slogdet(covariance_p)[1] - np.linalg.slogdet(covariance_q)[1]
        trace = np.trace(np.linalg.solve(covariance_p, covariance_q))
        return 0.5 * (trace + difference @ np.linalg.solve(covariance_p, difference) - self.T + logs)


@pytest.fixture(params=range(8))
def toy(request):
    return Toy(request.param)


def test_replicated_bound_is_the_evidence_plus_the_kl_of_the_posteriors(toy):
    prior, chain, heads, last = toy.terms()
    evidence = toy.log_evidence(np.arange(1, toy.T + 1))
    bound = prior + chain + heads.sum() + last
    assert bound >= -evidence
    assert bound + evidence == pytest.approx(toy.gap(), rel=1e-8, abs=1e-8)


def test_last_term_with_the_printed_sign_misses_the_evidence(toy):
    """Theorem 1 prints L3 without its minus."""
    prior, chain, heads, last = toy.terms()
    bound = prior + chain + heads.sum() - last
    assert abs(bound + toy.log_evidence(np.arange(1, toy.T + 1)) - toy.gap()) > 0.1


def test_weighted_heads_bound_the_evidence_of_a_single_copy(toy):
    prior, chain, heads, last = toy.terms()
    for seed in range(5):
        weights = np.random.default_rng(seed).dirichlet(np.ones(toy.T))
        evidence = np.log(sum(c * np.exp(toy.log_evidence(np.array([t]))) for t, c in enumerate(weights, 1)))
        assert prior + chain + weights @ heads + last >= -evidence


# Bits per dimension --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_levels", [2, 17, 256])
@pytest.mark.parametrize("estimated", [-1.3, -0.2, 0.0, 0.999])
@pytest.mark.parametrize("t", [1, 5, 100])
def test_probabilities_of_all_grey_levels_sum_to_one(num_levels, estimated, t):
    diffusion = GaussianDiffusion(LinearSchedule(100), dtype=torch.float64)
    levels = torch.linspace(-1, 1, num_levels, dtype=torch.float64)[:, None]
    nll = decoder_nll(diffusion, levels, torch.full_like(levels, estimated), torch.full((num_levels,), t), num_levels)
    assert float((-nll).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_decoder_integrates_the_gaussian_over_the_bin():
    diffusion = GaussianDiffusion(LinearSchedule(100), dtype=torch.float64)
    clean, estimated = torch.tensor([[-1.0, -0.5, 0.0, 1.0]], dtype=torch.float64), normal(20, 1, 4) / 3
    model = Normal(estimated, (1 - LinearSchedule(100).alpha_bar()[30]).sqrt())
    lower, upper = model.cdf(clean - 0.25), model.cdf(clean + 0.25)
    lower[0, 0], upper[0, 3] = 0, 1
    nll = decoder_nll(diffusion, clean, estimated, torch.tensor([30]), 5)
    torch.testing.assert_close(nll, -(upper - lower).log().sum(1), atol=1e-10, rtol=0)


@pytest.mark.parametrize("estimated", [-1.0, -0.3, 0.4, 1.0])
def test_decoder_keeps_its_digits_far_from_the_estimate_in_single_precision(estimated):
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]
    args = torch.full_like(levels, estimated), torch.ones(256, dtype=torch.int64)
    single = decoder_nll(GaussianDiffusion(LinearSchedule(1000)), levels.float(), args[0].float(), args[1], 256)
    double = decoder_nll(GaussianDiffusion(LinearSchedule(1000), dtype=torch.float64), levels, *args, 256)
    assert bool(torch.isfinite(single).all())
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)


POINTS = torch.tensor([[-1.0, -1 / 3], [1 / 3, 1.0], [1.0, -1.0], [-1 / 3, 1 / 3]], dtype=torch.float64)
"""Four grey vectors of two dimensions and four levels: -log2 p is exactly 1 bit a dimension."""


def best_network(kind, schedule):
    """The exact posterior mean for data that are one of POINTS, said as a prediction."""
    alpha_bar = schedule.alpha_bar()[:, None]

    def predict(z, time):
        signal, noise_level = alpha_bar[time].sqrt(), (1 - alpha_bar[time]).sqrt()
        distance = (z[:, None] - signal[:, None] * POINTS).square().sum(2)
        clean = (-distance / (2 * noise_level**2)).softmax(1) @ POINTS
        noise = (z - signal * clean) / noise_level
        return {"noise": noise, "clean": clean, "velocity": signal * noise - noise_level * clean}[kind]

    return predict


def measured(kind: PredictionKind = "velocity", schedule=None, steps=None, count=400, predict=None):
    schedule = schedule or LinearSchedule(100)
    diffusion = GaussianDiffusion(schedule, kind, torch.float64)
    clean, generator = POINTS.repeat(count // 4, 1), torch.Generator().manual_seed(21)

    def draw_noise():
        return torch.randn(clean.shape, generator=generator, dtype=torch.float64)

    return bits_per_dim(diffusion, predict or best_network(kind, schedule), clean, draw_noise, 4, steps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", [LinearSchedule(100), CosineSchedule(100)], ids=["linear", "cosine"])
def test_bits_of_the_best_network_bound_those_of_the_data(kind, schedule):
    bits = measured(kind, schedule, count=4000)["total"].mean()
    assert 1 <= float(bits) < 1.2


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
def test_fewer_steps_still_bound(steps):
    assert float(measured(steps=steps)["total"].mean()) >= 1


def test_all_steps_bound_more_tightly_than_a_tenth_of_them():
    assert float(measured()["total"].mean()) < float(measured(steps=10)["total"].mean()) - 0.5


def test_worse_network_costs_more_bits():
    best = best_network("velocity", LinearSchedule(100))
    worse = measured(predict=lambda z, time: best(z, time) + 0.3)
    assert float(worse["total"].mean()) > float(measured()["total"].mean()) + 0.1


def test_terms_add_up_to_the_total():
    bits = measured(steps=10)
    assert set(bits) == {"prior", "diffusion", "decoder", "total"}
    torch.testing.assert_close(bits["prior"] + bits["diffusion"] + bits["decoder"], bits["total"])


def test_prior_term_is_in_bits_per_dimension():
    alpha_bar = float(LinearSchedule(100).alpha_bar()[-1])
    square = alpha_bar * POINTS.square().sum(1)
    nats = 0.5 * (2 * (1 - alpha_bar) + square - 2 - 2 * math.log(1 - alpha_bar))
    torch.testing.assert_close(measured(steps=1, count=4)["prior"], nats / (2 * math.log(2)), atol=1e-12, rtol=0)


def test_diffusion_term_is_the_weighted_error_of_the_clean_state():
    """L_{t-1} = (snr_s - snr_t) / 2 ||z_0 - estimate||^2 when both have the posterior variance (derived)."""
    alpha_bar, noise = LinearSchedule(100).alpha_bar(), normal(22, 4, 2)
    snr = alpha_bar / (1 - alpha_bar)
    diffusion = GaussianDiffusion(LinearSchedule(100), "clean", torch.float64)
    bits = bits_per_dim(diffusion, lambda z, time: z.tanh(), POINTS, lambda: noise, 4, 4)["diffusion"]
    expected = torch.zeros(4, dtype=torch.float64)
    for t, s in ((100, 75), (75, 50), (50, 25)):
        error = POINTS - (alpha_bar[t].sqrt() * POINTS + (1 - alpha_bar[t]).sqrt() * noise).tanh()
        expected += (snr[s] - snr[t]) / 2 * error.square().sum(1)
    torch.testing.assert_close(bits, expected / (2 * math.log(2)), atol=0, rtol=1e-8)


@pytest.mark.parametrize("steps", [0, 101])
def test_bits_per_dim_refuses_steps_the_schedule_has_not(steps):
    with pytest.raises(ValueError, match="steps"):
        measured(steps=steps, count=4)
