"""DiffDis in training: the two losses and what they reach, settings that cannot be."""

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.diffusion import CosineSchedule
from mmdiffusion.methods.base import optimizer_groups
from tests.helpers import generator
from tests.methods.build_diffdis import DIRECTIONS, STEPS, batch_of, build


def reached(method, term):
    """Names of the parameters that a term of the loss gives a gradient."""
    method.zero_grad()
    method.train().losses(batch_of(), generator())[term].backward()
    return {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}


# Losses --------------------------------------------------------------------------------------------------------


def test_generation_is_the_loss_of_ddpm_with_captions():
    """Ho et al. 2020, Eq. 14, with the velocity as target, written out with the same draws."""
    method, batch = build(alignment_weight=0.0), batch_of()
    loss = method.train().losses(batch, generator(3))["generation"]
    _, seed, _ = torch.randint(2**31, (3,), generator=generator(3)).tolist()
    draws, image = generator(seed), batch["image"]
    time = torch.randint(1, STEPS + 1, (20,), generator=draws)
    noise = torch.randn(image.shape, generator=draws)
    is_dropped = torch.rand(20, generator=draws) < 0.1
    alpha_bar = CosineSchedule(STEPS).alpha_bar()[time].reshape(-1, 1, 1, 1)
    signal, sigma = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
    text = method.tower(batch["caption"])
    known = {"caption_tokens": text.tokens, "caption_mask": text.mask}
    prediction = method.denoise(signal * image + sigma * noise, time, method.conditioner(known, is_dropped))
    torch.testing.assert_close(loss, F.mse_loss(prediction, signal * noise - sigma * image))


def test_alignment_is_clip_s_loss_of_estimates_from_noisy_embeddings():
    method, batch = build(generation_weight=0.0, drop_image=0.0, gamma=0.5), batch_of(10)
    loss = method.train().losses(batch, generator(3))["alignment"]
    *_, seed = torch.randint(2**31, (3,), generator=generator(3)).tolist()
    draws, text = generator(seed), method.tower(batch["caption"]).summary
    time = torch.randint(1, STEPS + 1, (10,), generator=draws)
    torch.rand(10, generator=draws)
    noise = torch.randn(text.shape, generator=draws)
    alpha_bar = CosineSchedule(STEPS).alpha_bar()[time, None].float()
    noisy = 0.5 * alpha_bar.sqrt() * text + (1 - alpha_bar).sqrt() * noise
    estimate = method.query.estimate(noisy, time, method.look(batch["image"]))
    torch.testing.assert_close(estimate.norm(dim=1), torch.ones(10))
    logits = method.query.log_scale.exp() * estimate @ text.T
    target = torch.arange(10)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(loss, expected)


def test_the_loss_is_the_weighted_sum():
    terms = build(generation_weight=0.5, alignment_weight=3.0).losses(batch_of(), generator())
    torch.testing.assert_close(terms["loss"], 0.5 * terms["generation"] + 3 * terms["alignment"])


def test_a_task_switched_off_leaves_the_draws_of_the_other():
    both = build().losses(batch_of(), generator())
    assert torch.equal(build(alignment_weight=0.0).losses(batch_of(), generator())["generation"], both["generation"])
    assert torch.equal(build(generation_weight=0.0).losses(batch_of(), generator())["alignment"], both["alignment"])


@DIRECTIONS
def test_captions_enter_alignment_as_noisy_queries_and_targets_only(direction):
    """From queries of pure noise, other captions change what estimates are compared with and no estimate."""

    def change(pure_share):
        method, batch, made = build(direction, pure_share=pure_share, generation_weight=0.0), batch_of(), []
        method.query.head.out.register_forward_hook(lambda _, __, raw: made.append(F.normalize(raw[:, 0], dim=-1)))
        for captions in (batch["caption"], batch["caption"][::-1]):
            method.train().losses(batch | {"caption": captions}, generator())
        return (made[0] - made[1]).norm(dim=1).max()

    assert change(1.0) < 1e-3
    assert change(0.0) > 0.02


def test_same_captions_are_counted_and_are_no_negatives():
    terms = build().losses(batch_of(20), generator())
    assert terms["same_captions"] == 1


def test_training_fills_the_queue_and_validation_leaves_it():
    method = build(num_earlier=6)
    earlier = method.query.earlier
    first = method.losses(batch_of(4), generator(0))["alignment"]
    assert earlier.is_held.tolist() == [True] * 4 + [False] * 2
    assert method.losses(batch_of(4), generator(0))["alignment"] > first
    method.eval()
    before = earlier.embeddings.clone()
    method.losses(batch_of(4), generator(0))
    assert torch.equal(earlier.embeddings, before)
    assert earlier.is_held.all()


def test_accuracies_are_told_apart_by_noise_and_probed_without_images():
    method = build()
    in_training = set(method.train().losses(batch_of(), generator()))
    in_validation = set(method.eval().losses(batch_of(), generator()))
    assert in_validation - in_training == {"accuracy_blank", "accuracy_shuffled"}
    assert {f"accuracy_t{i}" for i in range(1, 5)} < in_training


def test_shares_of_dropped_images_and_pure_noise_are_drawn_for_each_sample():
    method, shown, times = build(generation_weight=0.0, drop_image=0.25, pure_share=0.5), [], []
    look, estimate = method.look, method.query.estimate
    method.look = lambda latent: shown.append(latent) or look(latent)
    method.query.estimate = lambda noisy, time, images: times.append(time) or estimate(noisy, time, images)
    method.train()
    for seed in range(20):
        method.losses(batch_of(50), generator(seed))
    blank = (torch.cat(shown) == 0).flatten(1).all(1).float().mean()
    pure = (torch.cat(times) == STEPS).float().mean()
    assert blank == pytest.approx(0.25, abs=0.05)
    assert pure == pytest.approx(0.5 + 0.5 / STEPS, abs=0.06)


# What they reach -----------------------------------------------------------------------------------------------


@DIRECTIONS
def test_both_losses_together_reach_every_weight(direction):
    method = build(direction)
    assert reached(method, "loss") == {name for name, _ in method.named_parameters()}


def test_generation_reaches_no_weight_of_discrimination():
    method = build(drop_caption=0.5)
    own = {id(p) for p in method.alignment_parameters()}
    names = {name for name, p in method.named_parameters() if id(p) not in own}
    assert reached(method, "generation") == names


@DIRECTIONS
def test_alignment_reaches_nothing_behind_the_middle_and_no_caption(direction):
    method = build(direction)
    names = reached(method, "alignment")
    assert not [name for name in names if name.startswith(("denoiser.up", "denoiser.split", "denoiser.out"))]
    assert {name for name in names if name.startswith("conditioner.")} == {
        "conditioner.null_token",
        "conditioner.null_vector",
    }
    for part in ("denoiser.embed", "denoiser.down", "denoiser.middle", "denoiser.stream", "query.head"):
        assert any(name.startswith(part) for name in names), part
    assert "query.log_scale" in names


@pytest.mark.parametrize("off", ["generation_weight", "alignment_weight"])
def test_with_one_task_every_weight_that_trains_is_reached(off):
    method = build(drop_caption=0.5, **{off: 0.0})
    trained = {name for name, p in method.named_parameters() if p.requires_grad}
    assert trained
    assert reached(method, "loss") == trained
    assert trained < {name for name, _ in method.named_parameters()}


def test_the_control_without_diffusion_sees_no_noise():
    method = build(is_diffused=False)
    images, time = method.look(batch_of()["image"]), torch.full((20,), STEPS)
    first, second = (method.query.estimate(torch.randn(20, 16, generator=generator(s)), time, images) for s in (0, 1))
    assert torch.equal(first, second)
    assert "query.constant" in reached(method, "alignment")


def test_groups_are_disjoint_complete_and_train_at_their_rates():
    method = build(alignment_rate=10.0)
    groups = method.parameter_groups()
    ids = [id(p) for group in groups for p in group.parameters]
    assert len(set(ids)) == len(ids) == len(list(method.parameters()))
    assert [group.rate for group in groups] == [1.0, 10.0]
    stream = {id(p) for p in method.denoiser.stream.parameters()}
    assert stream <= {id(p) for p in groups[1].parameters}
    steady = [group["params"] for group in optimizer_groups(method, groups) if not group["decays"]]
    assert steady == [[method.query.log_scale]]


def test_scale_starts_at_clip_s_and_stays_below_100():
    method = build()
    with torch.no_grad():
        method.query.log_scale.fill_(9.0)
    assert method.inverse_temperature == 100


# Mistakes ------------------------------------------------------------------------------------------------------


def test_one_pair_is_refused_and_few_are_warned_of():
    with pytest.raises(ValueError, match="the smallest batch has 1 pair"):
        build().check_batch(1)
    with pytest.warns(UserWarning, match="the smallest batch has 8 pairs"):
        build().check_batch(8)
    build(alignment_weight=0.0).check_batch(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"gamma": 0.0}, "gamma is 0.0"),
        ({"generation_weight": -1.0}, "generation_weight is -1.0"),
        ({"generation_weight": 0.0, "alignment_weight": 0.0}, "expected one of them above 0"),
        ({"drop_image": 1.5}, "drop_image is 1.5"),
        ({"alignment_rate": 0.0}, "alignment_rate is 0.0"),
        ({"patch_size": 3}, "patch_size is 3"),
        ({"num_earlier": -1}, "num_earlier is -1"),
        ({"alignment_steps": STEPS + 1}, f"steps is {STEPS + 1}"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_impossible_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)
