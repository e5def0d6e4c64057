"""The bound of MT-Diffusion: against the plain one, against every time summed, and above the evidence."""

import math

import pytest
import torch

from mmdiffusion.diffusion import CosineSchedule
from mmdiffusion.diffusion.bound import bits_per_dim, gaussian_kl
from mmdiffusion.diffusion.gaussian import GaussianDiffusion
from mmdiffusion.methods.extras import Extra
from mmdiffusion.methods.joint_bound import check_hidden, joint_bound, strata
from mmdiffusion.nn import MiddleHead, TableEncoder
from mmdiffusion.seeding import SampleNoise
from tests.methods.build_extras import DRIFT, SETTINGS, T, batch_of, build

QUARTERS = [f"diffusion_t{i}" for i in range(1, 5)]


def grey(batch):
    """Images on the 17 grey levels that the data has."""
    return batch | {"image": (batch["image"] * 8).round() / 8}


def test_without_extras_and_with_every_time_it_is_the_plain_bound():
    """The same network and the same noise through `bits_per_dim`, which walks over all times."""
    method, batch = build(), grey(batch_of(6))
    terms = joint_bound(method, batch, T - 1)
    noise = SampleNoise(0, range(6))

    def draw():
        noise.uniform((1,))
        return noise.normal((1, 8, 8))

    plain = bits_per_dim(
        GaussianDiffusion(CosineSchedule(T)), lambda z, t: method.network(z, t, [])[0], batch["image"], draw, 17
    )
    bits = {name: nats / (64 * math.log(2)) for name, nats in terms.items()}
    torch.testing.assert_close(bits["prior"], plain["prior"])
    torch.testing.assert_close(bits["decoder"], plain["decoder"])
    torch.testing.assert_close(sum(bits[name] for name in QUARTERS), plain["diffusion"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bits["image"], plain["total"], rtol=1e-4, atol=1e-5)


def test_terms_are_theorem_1_written_out():
    """One modality, every time: means in form (c) of the paper, heads' cross-entropy at every t (Theorem 1)."""
    method, batch = build("label"), grey(batch_of(5))
    terms, noise = joint_bound(method, batch, T - 1), SampleNoise(0, range(5))
    label, extra, process = batch["label"], method.extra("label"), method.diffusion
    e, drift = extra.encode(label), process.drift_table("label")
    alpha_bar = CosineSchedule(T).alpha_bar()
    told = method.network.tell({}, ["label"], 5)
    entropy, quarters = torch.zeros(5), torch.zeros(4, 5)
    for t in range(T, 0, -1):
        noise.uniform((1,))
        fresh, time = noise.normal((1, 8, 8)), torch.full((5,), t)
        signal, sigma = alpha_bar[t].sqrt().float(), (1 - alpha_bar[t]).sqrt().float()
        noisy = signal * batch["image"] + drift[t] * e + sigma * fresh
        velocity, outputs = method.network(noisy, time, told)
        probabilities = outputs["label"].softmax(1)
        entropy -= probabilities.log().gather(1, label[:, None])[:, 0] / T
        if t == 1:
            break
        guess = torch.einsum("bk,kchw->bchw", probabilities, extra.encode(torch.arange(10)))
        guessed_noise = sigma * (noisy - drift[t] * guess) + signal * velocity
        alpha = (alpha_bar[t] / alpha_bar[t - 1]).float()
        weight = drift[t] / alpha.sqrt() - drift[t - 1]
        scale = (1 - alpha) / (alpha * (1 - alpha_bar[t])).sqrt().float()
        difference = scale * (guessed_noise - fresh) + weight * (guess - e)
        variance = (1 - alpha) * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
        quarter = sum(t > end for end in (13, 25, 38))  # of t = 1..50: the step begins in it
        quarters[quarter] += difference.square().flatten(1).sum(1) / (2 * variance.float())
    torch.testing.assert_close(terms["label"], entropy, rtol=1e-4, atol=1e-5)
    for name, expected in zip(QUARTERS, quarters, strict=True):
        torch.testing.assert_close(terms[name], expected, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["feature", "feature_map"])
def test_a_gaussian_head_is_a_normal_distribution_with_its_constant(name):
    """-log p(x | z_t) of all its numbers at every time, each of the 20 parts of the time with its own variance."""
    method, batch = build(name), grey(batch_of(5))
    extra, alpha_bar = method.extra(name), CosineSchedule(T).alpha_bar()
    extra.variance.copy_(torch.linspace(0.2, 2.1, 20))
    terms, noise = joint_bound(method, batch, T - 1), SampleNoise(0, range(5))
    clean, encoding = method.space.lift(batch["image"]), method.space.lift(extra.encode(batch[name]), extra)
    told, expected = method.network.tell({}, [name], 5), torch.zeros(5)
    for t in range(T, 0, -1):
        noise.uniform((1,))
        free = alpha_bar[t].sqrt().float() * clean
        free += (1 - alpha_bar[t]).sqrt().float() * noise.normal(method.space.shape)
        noisy = free + method.diffusion.drift_table(name)[t] * encoding
        mean = method.network(noisy, torch.full((5,), t), told)[1][name].flatten(1)
        deviation = (0.2 + 0.1 * (math.ceil(t * 20 / T) - 1)) ** 0.5
        expected -= torch.distributions.Normal(mean, deviation).log_prob(batch[name].flatten(1)).sum(1) / T
    torch.testing.assert_close(terms[name], expected, rtol=1e-4, atol=1e-4)


def test_strata_are_an_unbiased_estimate_of_every_time():
    method, batch = build("label", "feature"), grey(batch_of(1))
    many = {name: x.expand(3000, *x.shape[1:]) for name, x in batch.items()} | {"index": torch.arange(3000)}
    few, all_times = joint_bound(method, many, 5), joint_bound(method, many, T - 1)
    for name in ("image", "label", "feature", *QUARTERS):
        error = (few[name].var() / 3000 + all_times[name].var() / 3000).sqrt()
        assert (few[name].mean() - all_times[name].mean()).abs() < 4 * error, name


def test_an_encoding_that_is_known_costs_what_plain_diffusion_does(monkeypatch):
    """With heads that are right, the drift cancels: L1 is that of the plain process (Theorem 1, Remark 2)."""
    method, batch = build("masked"), grey(batch_of(4))
    forward = method.network.forward

    def right(noisy, time, told):
        free = method.diffusion.drift_free(noisy, time, {"masked": method.extra("masked").encode(batch["masked"])})
        return forward(free, time, told)[0], {"masked": batch["masked"]}

    monkeypatch.setattr(method.network, "forward", right)
    aggregated = joint_bound(method, batch, T - 1)
    monkeypatch.setattr(
        method.network, "forward", lambda z, t, told: (forward(z, t, told)[0], {"masked": batch["masked"]})
    )
    monkeypatch.setattr(method.extra("masked"), "encode", lambda value: torch.zeros(4, 1, 8, 8))
    monkeypatch.setattr(method.extra("masked"), "expectation", lambda output: torch.zeros(4, 1, 8, 8))
    plain = joint_bound(method, batch, T - 1)
    for name in QUARTERS:
        torch.testing.assert_close(aggregated[name], plain[name], rtol=1e-3, atol=1e-4)


def test_the_prior_knows_the_encoding():
    method, batch = build("label"), grey(batch_of(4))
    alpha_bar = CosineSchedule(T).alpha_bar()[-1]
    mean = alpha_bar.sqrt().float() * batch["image"] + method.diffusion.drift_table("label")[-1] * method.extra(
        "label"
    ).encode(batch["label"])
    one = torch.ones_like(mean)
    expected = gaussian_kl(mean, (1 - alpha_bar).float() * one, torch.zeros_like(mean), one)
    torch.testing.assert_close(joint_bound(method, batch, 3)["prior"], expected, rtol=1e-4, atol=1e-5)


def test_a_sample_s_bound_does_not_depend_on_its_batch():
    method, batch = build("label", "masked"), grey(batch_of(6))
    together = joint_bound(method, batch, 5)
    alone = joint_bound(method, {name: values[4:5] for name, values in batch.items()}, 5)
    for name, values in together.items():
        torch.testing.assert_close(alone[name], values[4:5], rtol=1e-4, atol=1e-5)


# What has no bound ---------------------------------------------------------------------------------------------


def test_what_a_batch_lacks_is_named():
    with pytest.raises(ValueError, match="expected image and feature as well, for the bound"):
        joint_bound(build("label", "feature"), {n: batch_of(2)[n] for n in ("label", "index")}, 3)


def test_an_image_that_is_not_trained_is_refused():
    with pytest.raises(ValueError, match="image_weight is 0: expected above 0 in training, for the image that Bound"):
        check_hidden(build("label", image_weight=0.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"absent_share": 0.25, "shown_share": 0.75}, "absent_share and shown_share of label are 1 in sum: expected"),
        ({"weight": 0.0}, "weight of label is 0: expected above 0 in training, for the head that Bound measures"),
    ],
)
def test_an_extra_that_is_never_read_while_hidden_is_refused(settings, message):
    extra = Extra(TableEncoder, MiddleHead, DRIFT, **settings)
    method = build("feature", "label", settings=SETTINGS | {"label": extra})
    with pytest.raises(ValueError, match=message):
        check_hidden(method)


# Strata --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 4, 7, 49])
def test_strata_cover_each_time_once(number):
    parts = list(strata(50, number))
    assert parts[-1] == (1, 1)
    assert [t for low, high in reversed(parts) for t in range(low, high + 1)] == list(range(1, 51))
    sizes = [high - low + 1 for low, high in parts[:-1]]
    assert len(sizes) == number
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("number", [0, 50])
def test_more_strata_than_times_are_refused(number):
    with pytest.raises(ValueError, match=f"num_strata is {number}: expected 1 to 49"):
        list(strata(50, number))
