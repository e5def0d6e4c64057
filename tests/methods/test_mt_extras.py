"""MT-Diffusion with any extra modalities: one space, any subset known, conditionals that are right."""

import itertools
from functools import partial

import pytest
import torch

from mmdiffusion.diffusion import CosineSchedule, NoDrift, OneshotDrift, SaturatingDrift
from mmdiffusion.diffusion.gaussian import GaussianDiffusion
from mmdiffusion.masks import PatchMask
from mmdiffusion.methods import MTDiffusion
from mmdiffusion.methods.extras import Extra
from mmdiffusion.methods.joint_predictor import JointPredictor
from mmdiffusion.methods.joint_requests import JointRequest
from mmdiffusion.nn import (
    BackboneEncoder,
    Denoiser,
    IdentityEncoder,
    Level,
    MiddleHead,
    NoEncoder,
    OwnChannels,
    OwnHead,
    OwnToken,
    PaletteEncoder,
    TableEncoder,
    TokensHead,
)
from mmdiffusion.types import FeatureSpec, ImageSpec, LabelSpec, MaskedSpec, SegmentationSpec
from tests.helpers import generator

T = 50
SPEC = {
    "image": ImageSpec(1, 8, 17),
    "label": LabelSpec(10),
    "masked": MaskedSpec(1, 8),
    "segmentation": SegmentationSpec(("a", "b", "c"), 8),
    "feature": FeatureSpec((6,)),
    "feature_map": FeatureSpec((2, 4, 4)),
}
DRIFT = SaturatingDrift(0.5, 0.05)
SETTINGS = {
    "label": Extra(TableEncoder, MiddleHead, DRIFT),
    "masked": Extra(IdentityEncoder, TokensHead, DRIFT, mask=PatchMask(2, 8, 0.2)),
    "segmentation": Extra(PaletteEncoder, TokensHead, DRIFT),
    "feature": Extra(OwnToken, OwnHead, OneshotDrift(1.0)),
    "feature_map": Extra(OwnChannels, OwnHead, OneshotDrift(1.0)),
}
FOUR = ("label", "masked", "feature")


def build(*names, settings=SETTINGS, **changes):
    """A small model of the image and these extras, none of its weights zero."""
    options = {
        "denoiser": partial(Denoiser, levels=[Level(16, 1, 2), Level(16, 1, 2)], embedding_width=32),
        "schedule": CosineSchedule(T),
        "extras": {name: settings[name] for name in names},
        "patch_size": 2,
        "steps": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = MTDiffusion(SPEC, **options | changes)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return method


def batch_of(size=12, seed=0):
    draw = generator(seed)
    image = torch.rand(size, 1, 8, 8, generator=draw) * 2 - 1
    return {
        "image": image,
        "label": torch.arange(size) % 10,
        "masked": PatchMask(2, 8, 0.0)(image, draw),
        "segmentation": torch.randint(3, (size, 8, 8), generator=draw),
        "feature": torch.randn(size, 6, generator=draw),
        "feature_map": torch.randn(size, 2, 4, 4, generator=draw),
        "index": torch.arange(size),
    }


# Training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [(), ("label",), ("segmentation",), ("feature", "feature_map"), tuple(SETTINGS)])
def test_gradients_reach_every_weight(names):
    method = build(*names)
    terms = method.losses(batch_of(64), generator())
    assert set(terms) == {"loss", "mse", *names, *(f"{name}_absent" for name in names)}
    terms["loss"].backward()
    assert not [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_loss_is_the_weighed_sum():
    settings = {
        n: Extra(e.encoder, e.head, e.drift, 0.1 * (i + 1), mask=e.mask) for i, (n, e) in enumerate(SETTINGS.items())
    }
    terms = build(*settings, settings=settings).losses(batch_of(), generator())
    expected = terms["mse"] + sum(0.1 * (i + 1) * terms[name] for i, name in enumerate(settings))
    torch.testing.assert_close(terms["loss"], expected)


def test_a_learned_uncertainty_is_at_its_optimum_where_it_equals_the_log_of_the_loss():
    method = build("label", "feature", uncertainty=True)
    losses = {"label": torch.tensor(2.3), "feature": torch.tensor(0.4)}
    with torch.no_grad():
        for name, value in losses.items():
            method.log_variance[name].copy_(value.log())
    total = sum(method.weighed(method.extra(name), value) for name, value in losses.items())
    torch.testing.assert_close(total, sum(0.1 * (1 + value.log()) for value in losses.values()))
    total.backward()
    for name in losses:
        assert method.log_variance[name].grad.abs() < 1e-6


def test_without_extras_it_is_plain_diffusion_bit_for_bit():
    """Ho et al. 2020, Eq. 14, and DDIM, written with a plain process and the same draws."""
    method, batch, draws = build(), batch_of(), generator(5)
    terms, plain = method.losses(batch, generator(5)), GaussianDiffusion(CosineSchedule(T))
    time = torch.randint(1, T + 1, (12,), generator=draws)
    noise = torch.randn(12, 1, 8, 8, generator=draws)
    noisy = plain.corrupt(batch["image"], time, noise)
    prediction, outputs = method.network(noisy, time, [])
    squared = (prediction - plain.target(batch["image"], time, noise)).square().flatten(1).mean(1).mean()
    assert torch.equal(terms["loss"], squared)
    assert not outputs
    assert method.drawable == ("image",)
    assert method.givable == ()
    sample = method.sample({}, seeds=[3, 4])
    assert set(sample) == {"image", "index"}


@pytest.mark.parametrize("name", ["label", "masked"])
def test_an_encoding_of_zero_leaves_plain_diffusion(name):
    """A complete mask encodes to nothing: z_t, and what is drawn, is that of a model without drift."""
    value = torch.zeros(4, 2, 8, 8) if name == "masked" else torch.arange(4)
    encoder = NoEncoder if name == "label" else IdentityEncoder
    first, second = (
        build(name, settings={name: Extra(encoder, SETTINGS[name].head, drift)}) for drift in (DRIFT, NoDrift())
    )
    assert torch.equal(
        first.sample({name: value}, seeds=range(4))["image"], second.sample({name: value}, seeds=range(4))["image"]
    )


def test_a_modality_is_dropped_from_space_and_network_together():
    """What is absent enters nowhere: other values of it give the same loss of the image."""
    absent = {
        name: Extra(e.encoder, e.head, e.drift, absent_share=1.0, shown_share=0.0) for name, e in SETTINGS.items()
    }
    method, batch = build(*absent, settings=absent), batch_of()
    other = batch_of(seed=1) | {"image": batch["image"]}
    first, second = (method.losses(one, generator()) for one in (batch, other))
    assert torch.equal(first["mse"], second["mse"])
    assert all(not torch.equal(first[name], second[name]) for name in SETTINGS if name != "label")


def test_the_backbone_encodes_what_it_is_shown_without_a_gradient():
    """What the network predicts of the fixed noise for each class, made anew in training, and nothing before."""
    extra = Extra(BackboneEncoder, MiddleHead, DRIFT)
    method = build("label", settings={"label": extra})
    label, encoder = method.extra("label"), method.extra("label").encoder
    assert isinstance(encoder, BackboneEncoder)
    assert not label.encode(torch.arange(10)).any()
    method.network.ask_backbone("label", encoder)
    told = method.network.tell({"label": torch.arange(10)}, (), 10)
    made = method.network(encoder.noise.expand(10, -1, -1, -1), torch.full((10,), 45), told)[0]
    centred = made - made.mean(0)
    expected = 0.5 * centred / centred.square().mean().sqrt()
    torch.testing.assert_close(label.encode(torch.arange(10)), expected.detach(), rtol=1e-4, atol=1e-5)
    assert not encoder.table.requires_grad
    method.losses(batch_of(), generator())["loss"].backward()
    assert encoder.table.grad is None


# The space -----------------------------------------------------------------------------------------------------


def test_own_channels_with_a_single_shot_are_joint_diffusion_of_the_whole():
    """With strength 1 the state is that of plain diffusion over image, map and vector side by side (derived)."""
    method, batch = build("feature", "feature_map"), batch_of()
    encoded = {
        name: method.space.lift(method.extra(name).encode(batch[name]), method.extra(name))
        for name in method.network.extras
    }
    time, noise = torch.randint(1, T + 1, (12,), generator=generator()), torch.randn(12, 4, 8, 8, generator=generator())
    state = method.diffusion.corrupt(method.space.lift(batch["image"]), time, noise, encoded)
    feature_map = 0.5 * batch["feature_map"].repeat_interleave(2, 2).repeat_interleave(2, 3)
    vector = torch.nn.functional.pad(batch["feature"], (0, 58)).unflatten(1, (1, 8, 8))
    whole = torch.cat([batch["image"], feature_map, vector], dim=1)
    torch.testing.assert_close(state, GaussianDiffusion(CosineSchedule(T)).corrupt(whole, time, noise))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun"])
def test_with_perfect_heads_everything_is_drawn_along_one_line(monkeypatch, sampler):
    """A network that knows all three: they come out, and without fresh noise the state keeps its own."""
    method, batch = build("feature", "feature_map", sampler=sampler), batch_of(3)
    names = ("feature", "feature_map")

    def exact(noisy, time, told):
        noise = method.diffusion.noise_between(noisy[:, :1], batch["image"], time)
        return method.diffusion.target(batch["image"], time, noise), {name: batch[name] for name in names}

    monkeypatch.setattr(method.network, "forward", exact)
    states, step = [], method.diffusion.step

    def kept(predict, noisy, time, target, **options):
        states.append((time, noisy))
        return step(predict, noisy, time, target, **options)

    monkeypatch.setattr(method.diffusion, "step", kept)
    sample = method.sample({}, seeds=range(3))
    for name in ("image", *names):
        torch.testing.assert_close(sample[name], batch[name], atol=1e-4, rtol=0)
    if sampler != "ddpm":
        encoded = sum(method.space.lift(method.extra(name).encode(batch[name]), method.extra(name)) for name in names)
        whole = method.space.lift(batch["image"]) + encoded
        noises = [method.diffusion.noise_between(state, whole, time) for time, state in states]
        for noise in noises[1:]:
            torch.testing.assert_close(noise, noises[0], atol=1e-4, rtol=0)


def test_two_tokens_of_their_own_are_one_too_many():
    settings = {"feature": SETTINGS["feature"], "other": SETTINGS["feature"]}
    with pytest.raises(ValueError, match="extras has OwnToken for feature and other: expected one at most"):
        MTDiffusion(
            SPEC | {"other": FeatureSpec((6,))},
            partial(Denoiser, levels=[Level(16, 1, 2)]),
            CosineSchedule(T),
            settings,
        )


# Any subset known ----------------------------------------------------------------------------------------------

EVERYTHING = ("image", *FOUR)
SUBSETS = [known for size in range(4) for known in itertools.combinations(EVERYTHING, size)]


@pytest.mark.parametrize("known", SUBSETS, ids=lambda known: "+".join(known) or "nothing")
def test_any_subset_can_be_known(known):
    method, batch = build(*FOUR), batch_of(5)
    condition = {name: batch[name] for name in known}
    sample = method.sample(condition, seeds=range(5))
    assert set(sample) == {*EVERYTHING, "index"}
    for name in known:
        assert sample[name] is batch[name] or torch.equal(sample[name], batch[name]), "bit for bit"
    for name in EVERYTHING:
        assert sample[name].shape == batch[name].shape
        assert sample[name].isfinite().all()
    alone = method.sample({name: values[2:3] for name, values in condition.items()}, seeds=[2])
    for name in EVERYTHING:
        torch.testing.assert_close(alone[name][0], sample[name][2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("known", [(), ("label",), ("label", "feature")])
@pytest.mark.parametrize("name", FOUR)
def test_what_is_known_is_encoded_and_what_is_not_is_estimated(monkeypatch, known, name):
    method, batch = build(*FOUR), batch_of(3)
    extra, guesses = method.extra(name), []
    expectation = extra.expectation
    monkeypatch.setattr(extra, "expectation", lambda output: guesses.append(output) or expectation(output))
    seen = []
    drift = method.diffusion.drift
    monkeypatch.setattr(method.diffusion, "drift", lambda t, e, like: seen.append(e) or drift(t, e, like))
    method.sample({n: batch[n] for n in known}, seeds=range(3))
    assert bool(guesses) == (name not in known)
    if name in known:
        encoding = method.space.lift(extra.encode(batch[name]), extra)
        assert all(torch.equal(encodings[name], encoding) for encodings in seen)


def test_a_part_may_be_drawn_and_the_rest_left_out():
    method, batch = build(*FOUR), batch_of(3)
    assert set(method.sample({}, seeds=range(3), drawn=["image"])) == {"image", "index"}
    assert set(method.sample({"label": batch["label"][:3]}, seeds=range(3), drawn=["image"])) == {
        "label",
        "image",
        "index",
    }
    read = method.sample({"image": batch["image"]}, seeds=range(3), drawn=["label"])
    assert set(read) == {"image", "label", "index"}


def test_a_value_that_is_not_given_is_not_read():
    method, batch = build(*FOUR), batch_of(3)
    other = batch_of(3, seed=1)
    assert torch.equal(method.classify(batch), method.classify(batch | {n: other[n] for n in FOUR}))
    first, second = (method.sample({"image": batch["image"]}, seeds=range(3), drawn=["feature"]) for _ in range(2))
    assert torch.equal(first["feature"], second["feature"])


# Guidance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FOUR, "segmentation", "feature_map"])
def test_guidance_by_any_head_adds_its_gradient_to_the_score(name):
    method, batch, time = build(name), batch_of(4), torch.full((4,), 20)
    extra, noisy = method.extra(name), torch.randn(4, *method.space.shape, generator=generator(3))
    known = {name: batch[name]}
    plain, guided = (
        JointPredictor(method, known, JointRequest({}, ("image",), 1.0, scale, 1.0), 4)(noisy, time)
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


# Restoration ---------------------------------------------------------------------------------------------------


def test_what_could_be_seen_is_put_back():
    batch = batch_of(4)
    known, visible = {"masked": batch["masked"]}, batch["masked"][:, 1:] == 1
    restored = build("masked", paste_known=True).sample(known, seeds=range(4), drawn=["image"])["image"]
    free = build("masked").sample(known, seeds=range(4), drawn=["image"])["image"]
    assert torch.equal(restored[visible], batch["image"][visible])
    assert torch.equal(restored[~visible], free[~visible])
    assert not torch.equal(free[visible], batch["image"][visible])


# Mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "request_", "message"),
    [
        (FOUR, {"feature": torch.zeros(1, 5)}, r"feature is \(5,\): expected \(6,\) for each sample"),
        (FOUR, {"feature": torch.full((1, 6), torch.nan)}, "feature holds NaN"),
        (FOUR, {"masked": torch.zeros(1, 1, 8, 8)}, r"masked is \(1, 8, 8\): expected \(2, 8, 8\)"),
        (FOUR, {"label": torch.tensor([10])}, "label is 10: expected 0 to 9"),
        (
            ("segmentation",),
            {"segmentation": torch.zeros(1, 4, 4).long()},
            r"segmentation is \(4, 4\): expected \(8, 8\)",
        ),
        (("segmentation",), {"segmentation": torch.full((1, 8, 8), 3)}, "segmentation is 3: expected 0 to 2"),
        (FOUR, {"depth": torch.zeros(1)}, "given is 'depth': expected image or label or masked or feature"),
        (("label",), {"image": torch.zeros(1, 1, 8, 8), "label": torch.tensor([1])}, "expected something left to draw"),
    ],
)
def test_a_condition_that_does_not_fit_is_named(names, request_, message):
    with pytest.raises(ValueError, match=message):
        build(*names).sample(request_, seeds=[0])


def test_a_modality_without_a_trained_head_is_not_drawn():
    settings = {"label": Extra(TableEncoder, MiddleHead, DRIFT, weight=0.0), "feature": SETTINGS["feature"]}
    method = build("label", "feature", settings=settings)
    assert set(method.sample({}, seeds=[0])) == {"image", "feature", "index"}
    with pytest.raises(ValueError, match="drawn is 'label': expected image or feature from this model"):
        method.sample({}, seeds=[0], drawn=["image", "label"])


def test_a_mask_that_does_not_fit_is_named_before_training():
    with pytest.raises(ValueError, match="patch_size of the mask is 16: expected at most the image's 8"):
        build("masked", settings={"masked": Extra(IdentityEncoder, TokensHead, DRIFT, mask=PatchMask())})


def test_an_unknown_modality_is_named():
    with pytest.raises(
        ValueError, match="extras has 'depth': expected a modality of the data beside the image, it has"
    ):
        build("depth", settings={"depth": SETTINGS["label"]})
