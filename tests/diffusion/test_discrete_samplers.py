"""Samplers of mask-and-replace diffusion: what each step may do, and that a run ends clean."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from mmdiffusion.diffusion import Ancestral, ConfidenceUnmasking, MaskReplaceDiffusion, ReleasedSchedule, Remasking
from mmdiffusion.diffusion.discrete_posterior import SparsePosterior
from mmdiffusion.seeding import SampleNoise
from tests.diffusion.discrete_oracles import (
    MASK,
    NAMES,
    SCHEDULES,
    K,
    between,
    every_token,
    logits,
    one_step_matrices,
    pairs,
    process,
    times,
    uniform,
)

LENGTH = 24
SAMPLERS = {
    "ancestral": Ancestral(),
    "remasking": Remasking(0.5),
    "confidence": ConfidenceUnmasking(1.0),
    "greedy order": ConfidenceUnmasking(0.0),
}


def predict(noisy):
    """A made-up network that looks at the whole sequence."""
    table = logits(K + 1, LENGTH, K)
    return (table[noisy[:, 0]] + table[noisy[:, -1]]).log_softmax(-1)


def run(diffusion, sampler, noisy, noise, steps):
    """Every state of a run, the first included."""
    states = [noisy]
    for t, s in itertools.pairwise(diffusion.step_times(steps)):
        time, target = times(t, len(noisy)), times(s, len(noisy))
        uniforms = noise.uniform((sampler.num_uniforms, LENGTH))
        states.append(sampler(diffusion, predict(states[-1]), states[-1], time, target, uniforms))
    return states


# Whole runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, None])
def test_a_run_leaves_no_mask(sampler, name, steps):
    diffusion, noise = process(name, K), SampleNoise(0, range(5))
    for start in (torch.full((5, LENGTH), MASK), diffusion.prior(noise.uniform((2, LENGTH)))):
        end = run(diffusion, sampler, start, noise, steps or diffusion.num_steps)[-1]
        assert int(end.min()) >= 0
        assert int(end.max()) < K


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_sample_does_not_depend_on_its_batch(sampler):
    diffusion, start = process("mask_and_replace", K), torch.full((3, LENGTH), MASK)
    together = run(diffusion, sampler, start, SampleNoise(0, [4, 0, 9]), 4)[-1]
    alone = [run(diffusion, sampler, start[:1], SampleNoise(0, [index]), 4)[-1] for index in (4, 0, 9)]
    assert torch.equal(together, torch.cat(alone))
    assert len({tuple(row.tolist()) for row in together}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_as_many_strides_as_steps_is_the_plain_chain(name):
    diffusion, start = process(name, K), torch.full((2, LENGTH), MASK)
    assert diffusion.step_times(diffusion.num_steps) == list(range(diffusion.num_steps, -1, -1))
    strided = run(diffusion, Ancestral(), start, SampleNoise(0, [0, 1]), diffusion.num_steps)
    noise, state = SampleNoise(0, [0, 1]), start
    for t in range(diffusion.num_steps, 0, -1):
        clean = noise.uniform((3, LENGTH))
        state = diffusion.step(predict(state), state, times(t, 2), times(t - 1, 2), clean)
    assert torch.equal(strided[-1], state)


def test_no_remasking_is_ancestral_sampling():
    diffusion, start = process("mask_and_replace", K), torch.full((4, LENGTH), MASK)
    plain = run(diffusion, Ancestral(), start, SampleNoise(0, range(4)), 6)
    none = run(diffusion, Remasking(0.0), start, SampleNoise(0, range(4)), 6)
    assert all(torch.equal(a, b) for a, b in zip(plain, none, strict=True))


def test_only_remasking_masks_a_visible_token_again():
    diffusion, start = MaskReplaceDiffusion(ReleasedSchedule(20), K), torch.full((4, LENGTH), MASK)

    def returned(sampler):
        states = run(diffusion, sampler, start, SampleNoise(0, range(4)), 20)
        return sum(int(((a != MASK) & (b == MASK)).sum()) for a, b in itertools.pairwise(states))

    assert returned(Remasking(0.5)) > 20
    assert returned(Ancestral()) == returned(ConfidenceUnmasking()) == 0


# Remasking -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_remasking_keeps_the_marginals(name, share):
    """sum over x_t of q(x_t | x_0) q_sigma(x_s | x_t, x_0) = q(x_s | x_0), for every stride."""
    diffusion, matrices, (noisy, clean) = process(name, K), one_step_matrices(SCHEDULES[name], K), every_token(K)
    for t, s in pairs(diffusion.num_steps):
        rates = diffusion.rates(times(t, 1), times(s, 1), 1)
        posterior = SparsePosterior.of(rates, noisy, clean, K).remasked(rates, noisy, share, K)
        probs = posterior.dense(noisy, clean, K)[0].numpy()
        np.testing.assert_allclose(probs.sum(1), 1, atol=1e-12)
        assert probs.min() >= 0
        joint = (probs * between(matrices, 0, t)[noisy[0], clean[0]][:, None]).reshape(K + 1, K, K + 1)
        np.testing.assert_allclose(joint.sum(0), between(matrices, 0, s)[:, :-1].T, atol=1e-10)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_remasking_is_remdm_where_nothing_is_replaced(share):
    """Wang et al. 2025, with their alpha our alpha_bar: the cases z_t != m and z_t = m; 1e-6 is replaced."""
    diffusion = MaskReplaceDiffusion(ReleasedSchedule(20), K)
    noisy, clean = torch.tensor([[1, MASK]]), torch.tensor([[1, 1]])
    for t, s in ((20, 19), (12, 7), (3, 2)):
        alpha_t, alpha_s = float(diffusion.alpha_bar[t]), float(diffusion.alpha_bar[s])
        sigma = share * min(1, (1 - alpha_s) / alpha_t)
        rates = diffusion.rates(times(t, 1), times(s, 1), 1)
        visible, masked = (
            SparsePosterior.of(rates, noisy, clean, K).remasked(rates, noisy, share, K).dense(noisy, clean, K)[0]
        )
        assert visible[[1, MASK]].tolist() == pytest.approx([1 - sigma, sigma], abs=1e-4)
        expected = [(alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t), (1 - alpha_s - sigma * alpha_t) / (1 - alpha_t)]
        assert masked[[1, MASK]].tolist() == pytest.approx(expected, abs=1e-4)


def test_remasked_draws_have_their_probabilities():
    size, diffusion, time, target = 20_000, process("toy", K), times(4, 1), times(3, 1)
    for state in (1, MASK):
        noisy, clean = torch.full((1, size), state), torch.full((1, size), 2)
        rates = diffusion.rates(time, target, 1)
        posterior = SparsePosterior.of(rates, noisy[:, :1], clean[:, :1], K).remasked(rates, noisy[:, :1], 0.6, K)
        drawn = diffusion.posterior_draw(noisy, clean, time, target, uniform(1, 2, size, seed=state), remask=0.6)
        counts = torch.bincount(drawn[0], minlength=K + 1).numpy()
        expected = posterior.dense(noisy[:, :1], clean[:, :1], K)[0, 0].numpy()
        assert chisquare(counts, size * expected).pvalue > 1e-3


# Confidence ----------------------------------------------------------------------------------------------------


def unmask(sampler, log_probs, noisy, t, s, seed=0):
    diffusion, size = MaskReplaceDiffusion(ReleasedSchedule(20), K), len(noisy)
    noise = uniform(size, sampler.num_uniforms, noisy.shape[1], seed=seed)
    return sampler(diffusion, log_probs, noisy, times(t, size), times(s, size), noise)


def test_the_schedule_says_how_many_stay_masked():
    noisy = torch.full((2, LENGTH), MASK)
    noisy[1, :20] = 1
    log_probs = logits(2, LENGTH, K).log_softmax(-1)
    for t, s in ((20, 15), (10, 4), (5, 0)):
        left = (unmask(ConfidenceUnmasking(), log_probs, noisy, t, s) == MASK).sum(1).tolist()
        assert left == [int(24 * (s - 1) / (t - 1)) if s else 0, int(4 * (s - 1) / (t - 1)) if s else 0]


def test_every_step_unmasks_at_least_one():
    noisy = torch.full((1, LENGTH), MASK)
    noisy[:, 3:] = 0
    log_probs = logits(1, LENGTH, K).log_softmax(-1)
    assert int((unmask(ConfidenceUnmasking(), log_probs, noisy, 20, 19) == MASK).sum()) == 2


def test_without_noise_the_most_confident_are_unmasked():
    """Every second place is masked and predicted as 0, with a certainty that falls along the sequence."""
    noisy = torch.full((1, LENGTH), MASK)
    noisy[:, 1::2] = 2
    expected = torch.tensor([0, 2]).repeat(LENGTH // 2)
    certain = torch.nn.functional.one_hot(expected, K) * torch.linspace(40, 30, LENGTH)[:, None]
    drawn = unmask(ConfidenceUnmasking(0.0), certain.double().log_softmax(-1)[None], noisy, 13, 7)[0]
    masked = torch.zeros(LENGTH, dtype=torch.bool)
    masked[LENGTH // 2 :: 2] = True
    assert torch.equal(drawn, expected.masked_fill(masked, MASK))


def test_much_noise_makes_the_order_random():
    noisy = torch.full((400, 8), MASK)
    certain = torch.zeros(400, 8, K).index_fill(2, torch.tensor([0]), 1) * torch.linspace(9, 6, 8)[:, None]
    drawn = unmask(ConfidenceUnmasking(1e6), certain.double().log_softmax(-1), noisy, 19, 10)
    assert (drawn == MASK).double().mean(0).tolist() == pytest.approx([0.5] * 8, abs=0.08)


@pytest.mark.parametrize(("t", "s", "unmasked"), [(19, 10, 1), (3, 2, 0)])
def test_noise_fades_with_the_steps(t, s, unmasked):
    """Of two tokens one stays masked; noise worth 2, at scale s/T, stands against a lead in confidence of 0.9."""
    log_probs = torch.tensor([[[-0.1, -2.4, -9, -9], [-1.0, -0.5, -9, -9]]]).double()
    gumbel = torch.tensor([[0.0, 2.0]]).double()
    noise = torch.cat([torch.zeros(1, 3, 2), (-(-gumbel).exp()).exp()[:, None]], 1)
    diffusion = MaskReplaceDiffusion(ReleasedSchedule(20), K)
    drawn = ConfidenceUnmasking(1.0)(
        diffusion, log_probs, torch.tensor([[MASK, MASK]]), times(t, 1), times(s, 1), noise
    )
    assert int(drawn[0, unmasked]) == 0
    assert int(drawn[0, 1 - unmasked]) == MASK


def test_confident_sampling_mends_replaced_tokens_too():
    """All of the prior's visible tokens are replaced ones: a certain prediction brings every one of them home."""
    diffusion, noise = process("mask_and_replace", K), SampleNoise(0, range(8))
    certain = torch.zeros(8, LENGTH, K).index_fill(2, torch.tensor([3]), 1).double().mul(60).log_softmax(-1)
    state, sampler = diffusion.prior(noise.uniform((2, LENGTH))), ConfidenceUnmasking()
    assert bool(((state != MASK) & (state != 3)).any())
    for t, s in itertools.pairwise(diffusion.step_times(3)):
        state = sampler(diffusion, certain, state, times(t, 8), times(s, 8), noise.uniform((4, LENGTH)))
    assert bool((state == 3).all())


@pytest.mark.parametrize(
    ("build", "message"),
    [(lambda: Remasking(1.1), "share is 1.1"), (lambda: ConfidenceUnmasking(-1.0), "temperature is -1.0")],
)
def test_bad_settings_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
