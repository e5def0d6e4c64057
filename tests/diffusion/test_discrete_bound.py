"""The evidence bound of mask-and-replace diffusion against exact evidence on enumerated toys (arXiv 2107.03006)."""

import itertools
import math

import numpy as np
import pytest
import torch

from mmdiffusion.diffusion import bits_per_token
from mmdiffusion.diffusion.discrete_bound import falling_weight, rising_weight
from tests.diffusion.discrete_oracles import (
    NAMES,
    SCHEDULES,
    TOLERANCE,
    K,
    between,
    generator,
    logits,
    one_step_matrices,
    process,
    times,
    uniform,
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [None, 3, 1])
def test_exact_bayes_prediction_reverses_the_chain_exactly(name, steps):
    """One token: with p_hat = p(x_0 | x_t) the reverse kernels lead from q(x_T) back to the data distribution."""
    diffusion, schedule = process(name, K), SCHEDULES[name]
    matrices, data = one_step_matrices(schedule, K), np.array([0.1, 0.5, 0.15, 0.25])
    state = between(matrices, 0, schedule.num_steps)[:, :-1] @ data
    for t, s in itertools.pairwise(diffusion.step_times(steps or schedule.num_steps)):
        joint = between(matrices, 0, t)[:, :-1] * data
        bayes = torch.tensor(joint / joint.sum(1, keepdims=True)).log()[None]
        kernel = diffusion.reverse(bayes, torch.arange(K + 1)[None], times(t, 1), times(s, 1))[0].exp().numpy()
        state = state @ kernel
    np.testing.assert_allclose(state[:-1], data, atol=10 * TOLERANCE[name])
    assert state[-1] == pytest.approx(0, abs=1e-15)


class Toy:
    """Two tokens of three codes and any network at all: everything is enumerated."""

    num_codes, length = 3, 2

    def __init__(self, name):
        self.diffusion = process(name, self.num_codes)
        self.matrices = one_step_matrices(SCHEDULES[name], self.num_codes)
        self.states = torch.tensor(list(itertools.product(range(self.num_codes + 1), repeat=self.length)))
        self.scores = logits(self.diffusion.num_steps + 1, len(self.states), self.length, self.num_codes, scale=1)

    def predict(self, noisy, time):
        """A table of random predictions, one for each joint state and step."""
        number = noisy[:, 0] * (self.num_codes + 1) + noisy[:, 1]
        return self.scores[time, number].log_softmax(-1)

    def forward(self, clean, t):
        """q(x_t | x_0) of every joint state."""
        token = between(self.matrices, 0, t)
        return torch.tensor(token[self.states, clean.numpy()].prod(1))

    def log_evidence(self, clean):
        """log p_theta(x_0), summed over every chain from the prior."""
        size = len(self.states)
        state = self.diffusion.prior_probs()[self.states].prod(1)
        for t in range(self.diffusion.num_steps, 0, -1):
            log_p = self.diffusion.reverse(
                self.predict(self.states, times(t, size)), self.states, times(t, size), times(t - 1, size)
            )
            picked = log_p[:, torch.arange(self.length), :].gather(2, self.states.T.expand(size, -1, -1))
            state = state @ picked.sum(1).exp()
        return float(state[(self.states == clean).all(1)].log())

    def bound(self, clean):
        """L_T + sum of E[KL] + E[NLL], the expectations over x_t exact; nats of both tokens."""
        size, total = len(self.states), self.length * float(self.diffusion.prior_kl())
        for t in range(1, self.diffusion.num_steps + 1):
            reachable = self.forward(clean, t)
            kl = self.diffusion.divergence(
                self.predict(self.states, times(t, size)),
                self.states,
                clean.expand(size, 1, -1),
                times(t, size),
                times(t - 1, size),
            ).kl
            total += float((reachable * kl.sum((1, 2))).sum())
        return total


@pytest.mark.parametrize("name", NAMES)
def test_bound_is_above_the_exact_evidence(name):
    toy = Toy(name)
    evidence = {clean: toy.log_evidence(torch.tensor(clean)) for clean in itertools.product(range(3), repeat=2)}
    assert sum(math.exp(value) for value in evidence.values()) == pytest.approx(1, abs=1e-9)
    for clean, value in evidence.items():
        assert toy.bound(torch.tensor(clean)) > -value


@pytest.mark.parametrize("name", NAMES)
def test_bound_of_the_exact_bayes_prediction_is_the_entropy(name):
    """One token, averaged over the data: entropy plus KL(q(x_T) || p(x_T)), and no more."""
    diffusion, matrices = process(name, K), one_step_matrices(SCHEDULES[name], K)
    data, every = np.array([0.1, 0.5, 0.15, 0.25]), torch.arange(K + 1)[None]
    bound = float(diffusion.prior_kl())
    for t in range(1, diffusion.num_steps + 1):
        joint = between(matrices, 0, t)[:, :-1] * data
        bayes = torch.tensor(joint / joint.sum(1, keepdims=True)).log()[None]
        candidates = torch.arange(K)[None, :, None].expand(1, K, K + 1)
        kl = diffusion.divergence(bayes, every, candidates, times(t, 1), times(t - 1, 1)).kl[0]
        bound += (kl.numpy().T * joint).sum()
    end, prior = between(matrices, 0, diffusion.num_steps)[:, :-1] @ data, diffusion.prior_probs().numpy()
    assert bound == pytest.approx(-(data * np.log(data)).sum() + (end * np.log(end / prior)).sum(), abs=1e-8)


@pytest.mark.parametrize("name", ["toy", "mask_and_replace"])
def test_bits_per_token_estimate_the_bound(name):
    toy, clean, size = Toy(name), torch.tensor([2, 0]), 4000
    draw = generator(5)
    bits = bits_per_token(
        toy.diffusion,
        toy.predict,
        clean.expand(size, -1),
        lambda: torch.rand(size, 2, 2, generator=draw, dtype=torch.float64),
    )
    expected = toy.bound(clean) / toy.length / math.log(2)
    error = float(bits["total"].std()) / math.sqrt(size)
    assert float(bits["total"].mean()) == pytest.approx(expected, abs=4 * error)
    assert error < 0.02 * expected
    torch.testing.assert_close(bits["prior"] + bits["diffusion"] + bits["decoder"], bits["total"])


def test_one_stride_leaves_prior_and_decoder():
    toy, clean = Toy("toy"), torch.tensor([[2, 0]])
    bits = bits_per_token(toy.diffusion, toy.predict, clean, lambda: uniform(1, 2, 2), steps=1)
    noisy = toy.diffusion.corrupt(clean, times(5, 1), uniform(1, 2, 2))
    nll = -toy.predict(noisy, times(5, 1)).gather(2, clean[..., None]).mean() / math.log(2)
    assert float(bits["decoder"]) == pytest.approx(float(nll), abs=1e-12)
    assert float(bits["diffusion"]) == 0


def test_auxiliary_weights_run_in_their_published_directions():
    time = torch.tensor([1, 41, 80])
    assert falling_weight(time, 80).tolist() == pytest.approx([2, 1.5, 1.0125], abs=1e-6)
    assert rising_weight(time, 80).tolist() == pytest.approx([1, 1.5, 1.9875], abs=1e-6)
