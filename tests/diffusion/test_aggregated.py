"""Forward aggregation against Theorem 2 of MT-Diffusion (arXiv 2407.17571), written by hand in float64."""

import warnings

import pytest
import torch

from mmdiffusion.diffusion import (
    AggregatedDiffusion,
    CosineSchedule,
    GaussianDiffusion,
    LinearDrift,
    NoDrift,
    OneshotDrift,
    WeightedDrift,
)
from tests.diffusion.gaussian_oracles import (
    KINDS,
    SCHEDULES,
    TIME,
    T,
    bayes,
    close,
    column,
    form_a,
    form_b,
    form_c,
    normal,
    prediction_of,
)

# Forward process -----------------------------------------------------------------------------------------------


def test_iterated_kernel_of_the_paper_is_the_marginal(paper):
    process, clean = paper.process(), paper.clean[:1]
    encodings = {name: e[:1] for name, e in paper.encodings.items()}
    mean, variance = clean, torch.zeros(1, 1, dtype=torch.float64)
    for t in range(1, T + 1):
        added = sum((paper.weights[name][t] * e for name, e in encodings.items()), start=torch.zeros(1, 3))
        mean = paper.alpha[t].sqrt() * (mean + added)
        variance = paper.alpha[t] * variance + 1 - paper.alpha[t]
        marginal = process.corrupt(clean, column(t), torch.zeros_like(clean), encodings)
        deviation = process.corrupt(clean, column(t), torch.ones_like(clean), encodings) - marginal
        close(marginal, mean)
        close(deviation, variance.sqrt().expand(1, 3))


def test_kernel_is_theorem_2_at_every_step(paper):
    before = normal(40, T, 3)
    mean, variance = paper.process().kernel(before, TIME, TIME - 1, paper.encodings)
    close(mean, paper.alpha[TIME].sqrt() * (before + paper.weighted(TIME)))
    close(variance, 1 - paper.alpha[TIME])


@pytest.mark.parametrize("stride", [2, 7, T])
def test_kernel_of_a_stride_is_its_steps_composed(paper, stride):
    start = torch.arange(0, T - stride + 1)
    state = normal(41, len(start), 3)
    encodings = {name: e[: len(start)] for name, e in paper.encodings.items()}
    mean, variance = state, torch.zeros(len(start), 1, dtype=torch.float64)
    for k in range(1, stride + 1):
        t = start + k
        added = sum((paper.weights[name][t] * e for name, e in encodings.items()), start=torch.zeros(len(start), 3))
        mean = paper.alpha[t].sqrt() * (mean + added)
        variance = paper.alpha[t] * variance + 1 - paper.alpha[t]
    got, got_variance = paper.process().kernel(state, start + stride, start, encodings)
    close(got, mean)
    close(got_variance, variance)


def test_simulated_chain_has_the_moments_of_corrupt():
    """Sample means and variances of 20,000 hand-made chains lie within three standard errors."""
    schedule, count = CosineSchedule(5), 20_000
    alpha_bar = schedule.alpha_bar()
    weights, e, clean = [0.0, 0.5, -0.3, 0.4, 0.2, 0.1], 1.3, -0.7
    process = AggregatedDiffusion(schedule, {"x": WeightedDrift(weights[1:])}, dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    state = torch.full((count,), clean, dtype=torch.float64)
    one = torch.full((1, 1), clean, dtype=torch.float64)
    for t in range(1, 6):
        alpha = alpha_bar[t] / alpha_bar[t - 1]
        noise = torch.randn(count, generator=generator, dtype=torch.float64)
        state = alpha.sqrt() * (state + weights[t] * e) + (1 - alpha).sqrt() * noise
        encodings = {"x": torch.full_like(one, e)}
        mean = float(process.corrupt(one, column(t), torch.zeros_like(one), encodings))
        variance = (float(process.corrupt(one, column(t), torch.ones_like(one), encodings)) - mean) ** 2
        assert abs(float(state.mean()) - mean) < 3 * (variance / count) ** 0.5
        assert abs(float(state.var()) - variance) < 3 * variance * (2 / count) ** 0.5


@pytest.mark.parametrize(
    ("drift", "share"),
    [(LinearDrift(0.7), TIME[:, None].double() / T), (OneshotDrift(0.7), 1.0)],
    ids=["linear", "one"],
)
def test_corrupt_adds_the_encoding_to_the_clean_state_in_the_share_rho(schedule, drift, share):
    abar, clean, noise, e = schedule.alpha_bar()[TIME, None], normal(0, T, 3), normal(1, T, 3), normal(2, T, 3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="aggregation of .* the prior", category=UserWarning)
        process = AggregatedDiffusion(schedule, {"x": drift}, dtype=torch.float64)
    expected = abar.sqrt() * (clean + 0.7 * share * e) + (1 - abar).sqrt() * noise
    close(process.corrupt(clean, TIME, noise, {"x": e}), expected)


def test_absent_modality_is_a_zero_encoding(paper2):
    process = paper2.process()
    only = {"m0": paper2.encodings["m0"]}
    zero = only | {"m1": torch.zeros_like(only["m0"])}
    args = paper2.clean, TIME, paper2.noise
    close(process.corrupt(*args, only), process.corrupt(*args, zero), atol=0)


def test_zero_encoding_of_one_sample_leaves_the_others_alone(paper2):
    process, present = paper2.process(), (TIME % 2 == 0)[:, None]
    dropped = {name: e * present for name, e in paper2.encodings.items()}
    args = paper2.clean, TIME, paper2.noise
    expected = torch.where(present, process.corrupt(*args, paper2.encodings), process.corrupt(*args))
    close(process.corrupt(*args, dropped), expected, atol=0)


def test_modality_that_was_not_announced_is_refused(schedule):
    process = AggregatedDiffusion(schedule, {"x": NoDrift()})
    one = torch.ones(1, 3)
    with pytest.raises(AttributeError, match="label"):
        process.corrupt(one, column(5), one, {"label": one})


# Posterior -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [form_a, form_b, form_c])
def test_posterior_mean_is_the_form_of_the_paper(paper, form):
    noisy = normal(42, T, 3)
    mean, _ = paper.process().posterior(noisy, paper.clean, TIME, TIME - 1, paper.encodings)
    close(mean, form(paper, noisy), atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2, 13, T])
def test_posterior_is_bayes_rule_for_any_stride(paper, stride):
    time = torch.arange(stride, T + 1)
    noisy, encodings = normal(43, len(time), 3), {name: e[: len(time)] for name, e in paper.encodings.items()}
    clean = paper.clean[: len(time)]
    mean, variance = paper.process().posterior(noisy, clean, time, time - stride, encodings)
    expected, expected_variance = bayes(paper, noisy, time, time - stride, encodings)
    close(mean, expected)
    close(variance, expected_variance)


def test_posterior_variance_does_not_know_the_encodings(paper2):
    _, variance = paper2.process().posterior(paper2.noise, paper2.clean, TIME, TIME - 1, paper2.encodings)
    _, plain = GaussianDiffusion(paper2.schedule, dtype=torch.float64).posterior(
        paper2.noise, paper2.clean, TIME, TIME - 1
    )
    assert torch.equal(variance, plain)


def test_posterior_variance_of_the_clean_state_is_exactly_zero(paper2):
    _, variance = paper2.process().posterior(paper2.noise, paper2.clean, TIME, 0 * TIME, paper2.encodings)
    assert bool((variance == 0).all())


# Predictions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_perfect_prediction_of_the_drift_free_state_gives_back_clean_state_and_noise(paper2, kind):
    process = paper2.process(kind)
    free = process.drift_free(paper2.noisy(), TIME, paper2.encodings)
    prediction = prediction_of(kind, paper2.abar[TIME], paper2.clean, paper2.noise)
    close(process.predict_x0(free, TIME, prediction), paper2.clean, atol=1e-9)
    close(process.predict_noise(free, TIME, prediction), paper2.noise, atol=1e-9)


@pytest.mark.parametrize("kind", ["noise", "velocity"])
def test_leaving_the_encodings_in_the_noisy_state_gives_another_clean_state(paper2, kind):
    prediction = prediction_of(kind, paper2.abar[TIME], paper2.clean, paper2.noise)
    clean = paper2.process(kind).predict_x0(paper2.noisy(), TIME, prediction)
    assert float((clean - paper2.clean).abs().max()) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_target_is_the_perfect_prediction_of_the_drift_free_state(paper2, kind):
    target = paper2.process(kind).target(paper2.clean, TIME, paper2.noise)
    close(target, prediction_of(kind, paper2.abar[TIME], paper2.clean, paper2.noise))


# Precision -----------------------------------------------------------------------------------------------------


def test_tables_stay_out_of_checkpoints(paper2):
    assert len(paper2.process().state_dict()) == 0


@pytest.mark.parametrize("long_schedule", SCHEDULES)
@pytest.mark.parametrize("stride", [1, 20])
def test_single_precision_posterior_is_close(long_schedule, stride):
    abar, share = long_schedule(1000).alpha_bar()[:, None], torch.linspace(0, 0.7, 1001, dtype=torch.float64)[:, None]
    time = torch.arange(stride + 1, 1001)
    now, then, clean, noise, e = abar[time], abar[time - stride], *(normal(60 + i, len(time), 3) for i in range(3))
    free = now.sqrt() * clean + (1 - now).sqrt() * noise
    noisy, alpha = free + now.sqrt() * share[time] * e, now / then
    plain = then.sqrt() * (1 - alpha) * clean + alpha.sqrt() * (1 - then) * free
    expected = plain / (1 - now) + then.sqrt() * share[time - stride] * e
    process = AggregatedDiffusion(long_schedule(1000), {"x": LinearDrift(0.7)})
    got = process.corrupt(clean.float(), time, noise.float(), {"x": e.float()})
    assert float(((got - noisy).norm(dim=1) / noisy.norm(dim=1)).max()) < 1e-3
    mean, _ = process.posterior(noisy.float(), clean.float(), time, time - stride, {"x": e.float()})
    assert float(((mean - expected).norm(dim=1) / expected.norm(dim=1)).max()) < 1e-3
