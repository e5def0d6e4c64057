"""CDCD (arXiv 2206.07771): its loss and contrasts, what reaches what, and a sampler that sees no target."""

import math
from functools import partial

import pytest
import torch

from mmdiffusion.codecs import GreyLevels
from mmdiffusion.diffusion import (
    Ancestral,
    ConfidenceUnmasking,
    MaskAndReplaceSchedule,
    ReleasedSchedule,
    Remasking,
)
from mmdiffusion.methods import CDCD, Contrast, InterNegatives, IntraNegatives
from mmdiffusion.nn import Denoiser, LabelConditioner, Level
from mmdiffusion.types import TextSpec
from tests.helpers import SPEC, build_batch, generator

T = 20
SAMPLERS = [Ancestral(), ConfidenceUnmasking(), Remasking()]


def build(**changes):
    """The smallest CDCD, its weights the same at every call and none of them zero."""
    settings = {
        "spec": SPEC,
        "codec": GreyLevels,
        "conditioner": LabelConditioner,
        "denoiser": partial(Denoiser, levels=[Level(16, 1, 2)], embedding_width=32, positions="learned"),
        "schedule": MaskAndReplaceSchedule(T),
        "sampler": Ancestral(),
        "steps": T,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = CDCD(**settings | changes)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return method.train()


def loss(method, batch=None, seed=0):
    return method.losses(batch or build_batch(), generator(seed))


CONTRASTS = {
    f"{form} {flavour} {chain}": partial(Contrast, form=form, flavour=flavour, chain=chain, weight=0.1)
    for form in ("linear", "infonce")
    for flavour in ("step", "sample")
    for chain in ("shared", "own")
}


# Loss ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_bound_and_its_auxiliary_term():
    terms = loss(build(drop_share=0.0))
    assert set(terms) == {"loss", "bound", "auxiliary", "contrast"}
    assert terms["contrast"] == 0
    torch.testing.assert_close(terms["loss"], terms["bound"] + terms["auxiliary"])
    assert terms["auxiliary"] > 0


def test_the_bound_estimates_the_sum_over_all_steps():
    """One importance-drawn t a sample, over many draws, against every t once."""
    method, batch = build(drop_share=0.0, auxiliary_weight=0.0), build_batch(1)
    tokens = method.tokens(batch)
    condition, noise = method.conditioner(batch), generator(1)
    total = 0.0
    with torch.no_grad():
        for t in range(1, T + 1):
            time = torch.full((200,), t)
            uniform = torch.rand(200, 2, 64, generator=noise, dtype=torch.float64)
            noisy = method.diffusion.corrupt(tokens.expand(200, -1), time, uniform)
            repeated = condition._replace(vector=condition.vector.expand(200, -1))
            total += method.judge(noisy, tokens.expand(200, 1, -1), time, repeated).kl.mean().item()
        many = {name: value[:1].repeat_interleave(4000, 0) for name, value in batch.items()}
        estimate = loss(method.eval(), many)["bound"].item()
    assert estimate == pytest.approx(total, rel=0.05)


@pytest.mark.parametrize("name", CONTRASTS)
@pytest.mark.parametrize("negatives", [IntraNegatives(3), InterNegatives(3)], ids=["intra", "inter"])
def test_a_contrast_adds_its_term_and_changes_nothing_else(name, negatives):
    plain, contrasted = loss(build()), loss(build(contrasts=[CONTRASTS[name](negatives)]))
    for term in ("bound", "auxiliary"):
        torch.testing.assert_close(contrasted[term], plain[term])
    assert contrasted["contrast"] != 0
    assert (contrasted["contrast"] > 0) == name.startswith("infonce")
    torch.testing.assert_close(contrasted["loss"], plain["loss"] + contrasted["contrast"])


def test_contrasts_add_up_and_their_order_does_not_matter():
    first, second = (
        [Contrast(IntraNegatives(3), 0.1), Contrast(IntraNegatives(3), 0.2, flavour="sample")][::order]
        for order in (1, -1)
    )
    torch.testing.assert_close(loss(build(contrasts=first))["bound"], loss(build(contrasts=second))["bound"])
    assert loss(build(contrasts=first))["contrast"] < loss(build(contrasts=first[:1]))["contrast"] < 0


def test_a_dropped_condition_is_compared_with_nothing():
    method = build(contrasts=[Contrast(IntraNegatives(3), 1.0)], drop_share=0.999999)
    assert loss(method)["contrast"] == 0


class Same(IntraNegatives):
    """Negatives that are the positive itself, all of it counted."""

    def forward(self, tokens, group, generator):
        drawn = super().forward(tokens, group, generator)
        return drawn._replace(tokens=tokens[:, None].expand_as(drawn.tokens), counts=torch.ones_like(drawn.counts))


def test_a_negative_that_is_the_positive_scales_the_bound():
    """Linear, step, shared: KL - lambda b(t) KL, sample by sample."""
    weight, one = 0.3, {name: value[:1] for name, value in build_batch().items()}
    method = build(contrasts=[Contrast(Same(4), weight)], drop_share=0.0, auxiliary_weight=0.0)
    terms = loss(method, one)
    time = method.times.draw(1, generator())[0]
    scale = 1 - weight * (1 + (time.item() - 1) / T)
    torch.testing.assert_close(terms["loss"], scale * terms["bound"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("flavour", ["step", "sample"])
def test_equal_scores_cost_log_n_plus_one_under_infonce(flavour):
    contrast = Contrast(Same(4), 1.0, form="infonce", flavour=flavour)
    terms = loss(build(contrasts=[contrast], drop_share=0.0))
    assert terms["contrast"].item() == pytest.approx(math.log(5), rel=1e-5)


def test_relative_scores_take_the_null_condition_away():
    """A network that does not listen to the condition has ratios of 1: log(n + 1), whatever the tokens."""
    method = build(contrasts=[Contrast(IntraNegatives(4), 1.0, form="infonce", is_relative=True)], drop_share=0.0)
    assert loss(method)["contrast"].item() != pytest.approx(math.log(5), rel=1e-3)
    with torch.no_grad():
        method.conditioner.table.weight.zero_()
    assert loss(method)["contrast"].item() == pytest.approx(math.log(5), rel=1e-5)


def test_the_linear_form_has_a_ceiling_where_one_is_set():
    free, bounded = (
        loss(build(contrasts=[Contrast(IntraNegatives(3), 1.0, flavour="sample", ceiling=ceiling)]))["contrast"]
        for ceiling in (None, 0.5)
    )
    assert free < bounded < 0


@pytest.mark.parametrize("name", ["linear step shared", "infonce sample own"])
def test_gradients_reach_every_parameter(name):
    method = build(contrasts=[CONTRASTS[name](IntraNegatives(2))])
    loss(method)["loss"].backward()
    dead = [n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


def test_importance_learns_in_training_only():
    method = build()
    loss(method.eval())
    assert method.times.count.sum() == 0
    loss(method.train())
    assert method.times.count.sum() == 16


def test_overfits_one_batch():
    method, batch = build(schedule=ReleasedSchedule(T)), build_batch(4)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    history = []
    for step in range(80):
        terms = loss(method, batch, seed=step)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        history.append(terms["loss"].item())
    assert sum(history[-10:]) < 0.6 * sum(history[:10])


# Sampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("steps", [T, 7, 1])
def test_no_mask_is_left(sampler, steps):
    tokens = build(sampler=sampler).eval().sample({"label": torch.arange(5)}, seeds=range(5), steps=steps)["tokens"]
    assert tokens.shape == (5, 8, 8)
    assert tokens.max() < 17


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_a_sample_does_not_depend_on_its_batch(sampler):
    method = build(sampler=sampler).eval()

    def draw(seeds):
        return method.sample({"label": torch.tensor(seeds) % 10}, seeds=seeds, guidance=2.0)["tokens"]

    together = draw(list(range(12)))
    assert len(together.flatten(1).unique(dim=0)) == 12
    assert torch.equal(torch.cat([draw([i]) for i in range(12)]), together)


def test_no_sample_sees_a_target():
    """Two different truths and one seed give identical tokens."""
    method, batch = build().eval(), build_batch(6)
    other = batch | {"image": -batch["image"].flip(0)}
    assert torch.equal(method.predict_step(batch, 0)["tokens"], method.predict_step(other, 0)["tokens"])
    changed = batch | {"label": (batch["label"] + 1) % 10}
    assert not torch.equal(method.predict_step(batch, 0)["tokens"], method.predict_step(changed, 0)["tokens"])


def test_guidance_goes_from_nothing_to_the_condition():
    method, label = build().eval(), torch.arange(4)
    alone = method.sample({}, seeds=range(4))["tokens"]
    shown = method.sample({"label": label}, seeds=range(4), guidance=1.0)["tokens"]
    assert torch.equal(method.sample({"label": label}, seeds=range(4), guidance=0.0)["tokens"], alone)
    assert not torch.equal(shown, alone)


def test_truncation_to_the_most_probable_is_greedy():
    method = build(truncation=1e-6, schedule=ReleasedSchedule(T)).eval()
    first, second = (
        method.sample({"label": torch.arange(3)}, seeds=s, steps=1)["tokens"] for s in ([0, 1, 2], [3, 4, 5])
    )
    assert torch.equal(first, second), "one step from all masks, nothing left to chance"


def test_images_are_the_decoded_tokens():
    samples = build(schedule=ReleasedSchedule(T)).eval().sample({"label": torch.tensor([7])}, seeds=[3])
    assert set(samples) == {"image", "tokens", "label", "index"}
    tokens, image = samples["tokens"], samples["image"]
    assert isinstance(tokens, torch.Tensor)
    torch.testing.assert_close(image[:, 0], tokens / 8 - 1)


def test_nothing_draws_from_the_global_generator():
    method = build(contrasts=[Contrast(IntraNegatives(2)), Contrast(InterNegatives(2), chain="own")])
    before = torch.get_rng_state()
    loss(method)
    method.eval().sample({}, seeds=[0])
    assert torch.equal(torch.get_rng_state(), before)


# Mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_share": 1.0}, "drop_share is 1.0: expected 0 up to"),
        ({"truncation": 0.0}, "truncation is 0.0: expected above 0 and at most 1"),
        ({"truncation": 1.01}, "truncation is 1.01: expected above 0 and at most 1"),
        ({"temperature": 0.0}, "temperature is 0.0: expected above 0"),
        ({"temperature": math.nan}, "temperature is nan: expected above 0, and finite"),
        ({"contrasts": [Contrast(IntraNegatives(2, 65))]}, "num_chunks is 65: expected at most 64, the tokens"),
        ({"is_aligned": True}, "is_aligned is True: expected a conditioner with context tokens"),
        ({"steps": 21}, "steps is 21: expected 1 to 20"),
        ({"steps": 0}, "steps is 0: expected 1 to 20"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_negatives_of_another_class_need_classes():
    spec = {"image": SPEC["image"], "caption": TextSpec(8)}
    with pytest.raises(ValueError, match="InterNegatives: the data has no label to tell other classes by"):
        build(spec=spec, conditioner=lambda _: LabelConditioner(SPEC), contrasts=[Contrast(InterNegatives(2))])


@pytest.mark.parametrize("steps", [1, 3, 7, 13, T])
def test_any_number_of_steps_up_to_t_ends_in_codes(steps):
    tokens = build(steps=steps).eval().sample({}, seeds=[0, 1])["tokens"]
    assert isinstance(tokens, torch.Tensor)
    assert 0 <= tokens.min() <= tokens.max() < 17


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": 0.0}, "weight is 0.0: expected above 0"),
        ({"temperature": -1.0}, "temperature is -1.0: expected above 0"),
        ({"form": "infonce", "ceiling": 1.0}, "ceiling is 1.0, form is infonce: expected None"),
        ({"is_relative": True}, "is_relative is True, form is linear: expected infonce"),
    ],
)
def test_a_contrast_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Contrast(IntraNegatives(), **changes)


@pytest.mark.parametrize(
    ("changes", "request_", "message"),
    [
        ({}, {"drawn": ["label"]}, "drawn is 'label': expected image"),
        ({}, {"condition": {"caption": ["seven"]}}, "given is 'caption': expected label"),
        ({}, {"condition": {"label": torch.tensor([1, 2])}}, "label has 2 entries, seeds has 1"),
        ({}, {"guidance": 2.0}, "guidance is 2.0: expected None"),
        ({"drop_share": 0.0}, {}, "drop_share is 0: expected above 0"),
    ],
)
def test_a_request_that_the_model_cannot_serve_is_named(changes, request_, message):
    with pytest.raises(ValueError, match=message):
        build(**changes).sample(**{"condition": {}, "seeds": [0]} | request_)
