"""The bound of a linear-Gaussian model against its exact evidence (MT-Diffusion, Theorem 1, arXiv 2407.17571)."""

import warnings

import numpy as np
import pytest
import torch

from mmdiffusion.diffusion import AggregatedDiffusion, CosineSchedule, WeightedDrift
from mmdiffusion.diffusion.bound import gaussian_kl, prior_kl


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
