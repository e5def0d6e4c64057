"""Gaussian diffusion by hand in float64, and forward aggregation as in MT-Diffusion (Theorem 2, arXiv 2407.17571)."""

import warnings

import torch

from mmdiffusion.diffusion import AggregatedDiffusion, CosineSchedule, LinearSchedule, WeightedDrift
from mmdiffusion.diffusion.gaussian import PredictionKind

T = 60
TIME = torch.arange(1, T + 1)
KINDS = ["noise", "clean", "velocity"]
SAMPLERS = ["ddpm", "ddim", "heun"]
SCHEDULES = [LinearSchedule, CosineSchedule]


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def column(time):
    return torch.full((1,), time)


def close(actual, expected, atol=1e-10):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def prediction_of(kind, abar, clean, noise):
    """What a perfect network says: velocity is sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) clean."""
    return {"noise": noise, "clean": clean, "velocity": abar.sqrt() * noise - (1 - abar).sqrt() * clean}[kind]


class Paper:
    """A process with random w_t for some modalities, what the paper says of it, and one draw for each t = 1..T."""

    def __init__(self, schedule, num_modalities, seed=0):
        self.schedule = schedule
        self.abar = schedule.alpha_bar()[:, None]
        self.alpha = torch.cat([torch.ones(1, 1, dtype=torch.float64), self.abar[1:] / self.abar[:-1]])
        self.weights = {f"m{i}": 0.3 * normal(seed + i, T + 1, 1) for i in range(num_modalities)}
        self.clean, self.noise = normal(seed + 10, T, 3), normal(seed + 11, T, 3)
        self.encodings = {name: normal(seed + 20 + i, T, 3) for i, name in enumerate(self.weights)}

    def process(self, kind: PredictionKind = "noise", dtype=torch.float64):
        drifts = {name: WeightedDrift(weights[1:, 0].tolist()) for name, weights in self.weights.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="aggregation of .* the prior", category=UserWarning)
            return AggregatedDiffusion(self.schedule, drifts, kind, dtype)

    def drift(self, time, encodings):
        """Closed sum: alpha_tilde_t = sum_{s <= t} w_s sqrt(alpha_bar_t / alpha_bar_{s-1})."""
        total = torch.zeros(len(time), 3, dtype=torch.float64)
        for name, e in encodings.items():
            terms = self.weights[name][1:] / self.abar[:-1].sqrt()
            share = torch.cat([torch.zeros(1, 1, dtype=torch.float64), terms.cumsum(0)])
            total = total + self.abar[time].sqrt() * share[time] * e
        return total

    def weighted(self, time):
        """sum_i w_t^i e_i."""
        return sum((self.weights[name][time] * e for name, e in self.encodings.items()), start=torch.zeros(T, 3))

    def noisy(self):
        """z_t for t = 1..T."""
        mean = self.abar[TIME].sqrt() * self.clean + self.drift(TIME, self.encodings)
        return mean + (1 - self.abar[TIME]).sqrt() * self.noise


def form_a(paper, noisy):
    alpha, before, now = paper.alpha[TIME], paper.abar[TIME - 1], paper.abar[TIME]
    aggregated = (1 - alpha) / alpha.sqrt() * paper.drift(TIME, paper.encodings) - (1 - now) * paper.weighted(TIME)
    plain = alpha.sqrt() * (1 - before) * noisy + (1 - alpha) * before.sqrt() * paper.clean
    return (plain + aggregated) / (1 - now)


def form_b(paper, noisy):
    alpha, before, now = paper.alpha[TIME], paper.abar[TIME - 1], paper.abar[TIME]
    aggregated = (1 - alpha) * paper.drift(TIME - 1, paper.encodings) - alpha * (1 - before) * paper.weighted(TIME)
    plain = alpha.sqrt() * (1 - before) * noisy + (1 - alpha) * before.sqrt() * paper.clean
    return (plain + aggregated) / (1 - now)


def form_c(paper, noisy, sign=-1):
    alpha, now = paper.alpha[TIME], paper.abar[TIME]
    noise = noisy - now.sqrt() * paper.clean - paper.drift(TIME, paper.encodings)
    noise = noise / (1 - now).sqrt()
    return (noisy - (1 - alpha) / (1 - now).sqrt() * noise) / alpha.sqrt() + sign * paper.weighted(TIME)


def bayes(paper, noisy, time, target, encodings):
    """q(z_s | z_t, z_0, X): the marginal of z_s conditioned on z_t = sqrt(a) (z_s + sum w e) + sqrt(1 - a) n."""
    alpha, variance = paper.abar[time] / paper.abar[target], 1 - paper.abar[target]
    mean = paper.abar[target].sqrt() * paper.clean[: len(time)] + paper.drift(target, encodings)
    added = paper.drift(time, encodings) / alpha.sqrt() - paper.drift(target, encodings)
    gain = alpha.sqrt() * variance / (alpha * variance + 1 - alpha)
    return mean + gain * (noisy - alpha.sqrt() * (mean + added)), variance - gain * alpha.sqrt() * variance


def oracle(paper, kind, clean, encodings):
    """A network that knows the clean state and the encodings of its samples."""

    def predict(z, time):
        abar = paper.abar[time]
        noise = (z - abar.sqrt() * clean - paper.drift(time, encodings)) / (1 - abar).sqrt()
        return prediction_of(kind, abar, clean, noise), encodings

    return predict
