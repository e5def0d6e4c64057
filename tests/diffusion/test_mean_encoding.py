"""The reverse mean takes the mean of an unknown modality's encoding: images and classes of which all can be listed.

MT-Diffusion (arXiv 2407.17571, Sec. 3) leaves open what is subtracted for a modality that is only estimated (derived).
"""

import pytest
import torch
from torch.nn.functional import one_hot

from mmdiffusion.diffusion import AggregatedDiffusion, LinearDrift
from tests.diffusion.gaussian_oracles import KINDS, SCHEDULES, T, close, prediction_of

IMAGES = torch.tensor([-0.9, -0.2, 0.1, 0.5, 0.8], dtype=torch.float64)
CLASSES = torch.tensor([0, 2, 1, 0, 2])
CHANCES = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=torch.float64)
"""Of each image with its class."""
ENCODINGS = torch.tensor([1.0, 0.3, -1.0], dtype=torch.float64)
"""Of the classes: no line through their numbers."""
STATES = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
STEPS = [(2, 1), (20, 19), (45, 30), (T, T - 1)]
STRENGTH = 0.7


def density(x, mean, variance):
    return torch.exp(-((x - mean) ** 2) / (2 * variance))


def by_class(chances):
    return chances @ one_hot(CLASSES).double()


class World:
    """The five images under a linear drift, rho_t = 0.7 t / T."""

    def __init__(self, schedule):
        self.abar = schedule(T).alpha_bar()
        self.drift = STRENGTH * torch.arange(T + 1).double() / T * self.abar.sqrt()
        self.schedule, self.e = schedule(T), ENCODINGS[CLASSES]

    def posterior(self, z, t):
        """p(image, class | z_t) by Bayes' rule over the list."""
        mean = self.abar[t].sqrt() * IMAGES + self.drift[t] * self.e
        joint = CHANCES * density(z, mean, 1 - self.abar[t])
        return joint / joint.sum(1, keepdim=True)

    def weight(self, t, s):
        """What the kernel from s to t adds of an encoding, before it is scaled."""
        return self.drift[t] / (self.abar[t] / self.abar[s]).sqrt() - self.drift[s]

    def reverse_mean(self, z, t, s):
        """E[z_s | z_t]: the integral over z_s of the forward process alone, without any formula of a posterior."""
        grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
        alpha = self.abar[t] / self.abar[s]
        means = alpha.sqrt() * (grid + self.weight(t, s) * self.e)
        before = CHANCES * density(grid, self.abar[s].sqrt() * IMAGES + self.drift[s] * self.e, 1 - self.abar[s])
        joint = torch.stack([(before * density(one, means, 1 - alpha)).sum(1) for one in z])
        return (joint @ grid) / joint.sum(1, keepdim=True)

    def stepped(self, kind, z, t, s, encode):
        """A step of a network that predicts the posterior mean; `encode` makes an encoding of its p(class | z_t)."""
        chances = self.posterior(z, t)
        noise = (z - self.abar[t].sqrt() * IMAGES - self.drift[t] * self.e) / (1 - self.abar[t]).sqrt()
        prediction = (chances * prediction_of(kind, self.abar[t], IMAGES, noise)).sum(1, keepdim=True)
        process = AggregatedDiffusion(self.schedule, {"x": LinearDrift(STRENGTH)}, kind, torch.float64)
        time, target = (torch.full((len(z),), x) for x in (t, s))
        predict = lambda *_: (prediction, {"x": encode(by_class(chances))})  # noqa: E731
        return process.step(predict, z, time, target, sampler="ddpm", noise=torch.zeros_like(z))


def mean_encoding(classes):
    return (classes * ENCODINGS).sum(1, keepdim=True)


def encoding_of_the_best(classes):
    return ENCODINGS[classes.argmax(1)][:, None]


@pytest.fixture(params=SCHEDULES, ids=["linear_schedule", "cosine_schedule"])
def world(request):
    return World(request.param)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("t", "s"), STEPS)
def test_with_the_mean_encoding_the_step_has_the_exact_mean(world, kind, t, s):
    close(world.stepped(kind, STATES, t, s, mean_encoding), world.reverse_mean(STATES, t, s), atol=1e-10)


@pytest.mark.parametrize(("t", "s"), STEPS[1:])
def test_with_the_encoding_of_the_best_class_it_is_off_by_the_weighted_difference(world, t, s):
    """By w (E(best) - E[E(x) | z_t]), subtracted as in form (c) of Theorem 2."""
    off = world.stepped("noise", STATES, t, s, encoding_of_the_best) - world.reverse_mean(STATES, t, s)
    classes = by_class(world.posterior(STATES, t))
    error = encoding_of_the_best(classes) - mean_encoding(classes)
    close(off, -world.weight(t, s) * error, atol=1e-10)
    assert error.abs().max() > 0.4, "classes that are certain would prove nothing"
