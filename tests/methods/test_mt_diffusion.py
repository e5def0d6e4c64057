"""MT-Diffusion of images and labels (arXiv 2407.17571): its loss, the three states of a label, its settings."""

import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.diffusion import CosineSchedule, NoDrift
from mmdiffusion.nn import Denoiser, Level, MiddleHead, OutputHead
from mmdiffusion.types import ImageSpec, TextSpec
from tests.helpers import SPEC, T, build_batch, build_method, generator
from tests.methods.spy import Spy


def grad_sum(module):
    return sum(p.grad.abs().sum().item() for p in module.parameters() if p.grad is not None)


# Loss ----------------------------------------------------------------------------------------------------------


def test_terms_are_named_finite_and_sum_up():
    method = build_method(weight=0.3)
    terms = method.losses(build_batch(), generator())
    assert list(terms) == ["loss", "mse", "label", "label_absent"]
    assert all(term.isfinite() for term in terms.values())
    torch.testing.assert_close(terms["loss"], terms["mse"] + 0.3 * terms["label"])


@pytest.mark.parametrize("head", [MiddleHead, OutputHead])
def test_gradients_reach_every_parameter_and_never_the_encoder(head):
    method = build_method(head=head)
    method.losses(build_batch(), generator())["loss"].backward()
    dead = [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead
    assert not list(method.extra("label").encoder.parameters())
    assert not method.extra("label").encoder.table.requires_grad
    assert method.extra("label").encoder.table.grad is None


def test_no_gradient_through_the_encoder():
    method = build_method()
    method.extra("label").encoder.table.requires_grad_()
    method.losses(build_batch(), generator())["loss"].backward()
    assert method.extra("label").encoder.table.grad is None


def test_without_weight_the_head_is_not_trained():
    method = build_method(weight=0.0)
    method.losses(build_batch(), generator())["loss"].backward()
    assert grad_sum(method.extra("label").head) == 0
    assert grad_sum(method.network.denoiser) > 0


@pytest.mark.parametrize("head", [MiddleHead, OutputHead])
def test_gradients_reach_the_denoiser_from_the_label_alone(head):
    method = build_method(head=head, prediction="clean")
    method.losses(build_batch(), generator())["label"].backward()
    assert grad_sum(method.network.denoiser.middle) > 0
    is_reached = grad_sum(method.network.denoiser.out) > 0
    assert is_reached == (head is OutputHead), "variant E reads the output, variant M what comes before"


@pytest.mark.parametrize("detach_image_path", [False, True])
def test_a_head_behind_a_detached_output_leaves_the_denoiser_alone(detach_image_path):
    """Variant E: the label's gradient passes the estimate of z_0, unless that is asked for."""
    head = partial(OutputHead, detach_image_path=detach_image_path)
    method = build_method(head=head, prediction="clean")
    method.losses(build_batch(), generator())["label"].backward()
    assert (grad_sum(method.network.denoiser) == 0) == detach_image_path
    assert grad_sum(method.extra("label").head) > 0


def test_an_absent_label_is_nowhere_in_the_mse():
    method, batch = build_method(absent_share=1.0, shown_share=0.0), build_batch()
    other = batch | {"label": batch["label"].flip(0)}
    first, second = (method.losses(b, generator()) for b in (batch, other))
    assert torch.equal(first["mse"], second["mse"])
    assert not torch.equal(first["label"], second["label"])
    assert torch.equal(first["label"], first["label_absent"])


@pytest.mark.parametrize("absent_share", [0.0, 0.5])
def test_otherwise_the_label_enters(absent_share):
    method, batch = build_method(absent_share=absent_share, shown_share=0.0), build_batch()
    other = batch | {"label": batch["label"].flip(0)}
    first, second = (method.losses(b, generator())["mse"] for b in (batch, other))
    assert not torch.equal(first, second)


def test_shown_labels_count_in_no_cross_entropy():
    terms = build_method(absent_share=0.0, shown_share=1.0).losses(build_batch(), generator())
    assert terms["label"] == terms["label_absent"] == 0
    assert terms["loss"] == terms["mse"]


def test_an_extra_counts_where_it_is_hidden_or_absent_and_apart_where_it_is_absent(monkeypatch):
    """Sums over the samples of each state, one by one; all three states occur."""
    method, batch = build_method(absent_share=0.3, shown_share=0.4, weight=0.3), build_batch(40)
    network, tell = (Spy(monkeypatch, owner, "forward") for owner in (method.network, method.extra("label").teller))
    terms = method.losses(batch, generator())
    ((_, is_shown, is_absent),) = tell.calls
    chances = network.function(*network.calls[0])[1]["label"].detach().softmax(1)
    each: dict[str, list[float]] = {"shown": [], "absent": [], "hidden": []}
    for i, label in enumerate(batch["label"]):
        state = "shown" if is_shown[i] else "absent" if is_absent[i] else "hidden"
        each[state].append(-math.log(float(chances[i, label])))
    assert all(len(losses) > 5 for losses in each.values())
    counted = each["hidden"] + each["absent"]
    assert terms["label"].item() == pytest.approx(sum(counted) / len(counted), rel=1e-5)
    assert terms["label_absent"].item() == pytest.approx(sum(each["absent"]) / len(each["absent"]), rel=1e-5)
    assert terms["loss"].item() == pytest.approx((terms["mse"] + 0.3 * terms["label"]).item(), rel=1e-6)


@pytest.mark.parametrize("prediction", ["noise", "clean", "velocity"])
def test_reduces_to_ddpm(prediction):
    """Without drift, label and weight the loss is Ho et al. 2020, Eq. 14, written out with the same draws."""
    method = build_method(drift=NoDrift(), weight=0.0, absent_share=1.0, shown_share=0.0, prediction=prediction)
    batch, draws = build_batch(), generator(5)
    terms = method.losses(batch, generator(5))

    image = batch["image"]
    time = torch.randint(1, T + 1, (len(image),), generator=draws)
    noise = torch.randn(image.shape, generator=draws)
    alpha_bar = CosineSchedule(T).alpha_bar()[time].reshape(-1, 1, 1, 1)
    signal, sigma = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
    noisy = signal * image + sigma * noise
    predicted, _ = method.network(noisy, time, method.network.tell({}, (), len(image)))
    target = {"noise": noise, "clean": image, "velocity": signal * noise - sigma * image}[prediction]
    torch.testing.assert_close(terms["mse"], F.mse_loss(predicted, target), rtol=1e-6, atol=0)
    assert torch.equal(terms["loss"], terms["mse"])


def test_dropout_removes_a_label_from_aggregation_and_condition_together(monkeypatch):
    method, batch = build_method(absent_share=0.4, shown_share=0.3), build_batch(512)
    label = method.extra("label")
    corrupt, tell = Spy(monkeypatch, method.diffusion, "corrupt"), Spy(monkeypatch, label.teller, "forward")
    method.losses(batch, generator())
    ((_, time, _, encodings),), ((told, is_shown, is_absent),) = corrupt.calls, tell.calls
    is_aggregated = encodings["label"].flatten(1).any(1)
    assert torch.equal(is_aggregated, ~is_absent)
    assert torch.equal(told, batch["label"])
    assert torch.equal(encodings["label"][is_aggregated], label.encode(told)[is_aggregated])
    assert not (is_shown & is_absent).any()
    assert is_shown.double().mean().item() == pytest.approx(0.3, abs=0.07)
    assert is_absent.double().mean().item() == pytest.approx(0.4, abs=0.07)
    assert (time.min(), time.max()) == (1, T)


def test_overfits_one_batch():
    method, batch = build_method(weight=0.1), build_batch()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    history = []
    for _ in range(60):
        loss = method.losses(batch, generator())["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] / 2


# Settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, -1, T + 1])
def test_steps_out_of_range_are_refused(steps):
    message = rf"steps is {steps}: expected 1 to {T}"
    with pytest.raises(ValueError, match=message):
        build_method().sample({}, seeds=[0], steps=steps)
    with pytest.raises(ValueError, match=message):
        build_method(steps=steps)


def levels(*widths):
    return partial(Denoiser, levels=[Level(width, 1, 2) for width in widths])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 3}, r"patch_size is 3: expected a divisor of 8, the side"),
        ({"patch_size": 0}, r"patch_size is 0: expected"),
        (
            {"spec": {"image": SPEC["image"]}},
            r"extras has 'label': expected a modality of the data beside the image, it has image",
        ),
        ({"spec": {"image": ImageSpec(1, 8), "label": TextSpec(3)}}, r"spec is TextSpec.*: expected a label"),
        ({"absent_share": 0.8, "shown_share": 0.3}, r"absent_share \+ shown_share of label is 1.1: expected at most 1"),
        ({"absent_share": 1.2, "shown_share": 0.0}, r"absent_share of label is 1.2: expected 0 to 1"),
        ({"shown_share": -0.1}, r"shown_share of label is -0.1: expected 0 to 1"),
        ({"weight": -1.0}, r"weight of label is -1.0: expected 0 or more"),
        ({"denoiser": levels(16, 16, 16)}, r"grid is \(2, 2\), levels has 3: .*patch size"),
        ({"denoiser": levels(15)}, r"levels\[0\] is .*15.* heads"),
        ({"read_times": (0.1, 2.0)}, r"read_times is .*2\.0.*: expected"),
        ({"read_times": ()}, r"read_times is .*: expected"),
        ({"image_weight": -1.0}, r"image_weight is -1.0: expected 0 or more"),
        ({"image_weight": float("nan")}, r"image_weight is nan: expected 0 or more"),
        ({"image_weight": 0.0, "weight": 0.0}, r"image_weight is 0: expected above 0, as no extra is read off images"),
        ({"image_weight": 0.0, "absent_share": 0.0}, r"image_weight is 0: expected above 0, as no extra is read"),
        ({"warmup_steps": -1}, r"warmup_steps is -1: expected"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_setting_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build_method(**changes)


def test_the_sum_of_shares_may_round():
    build_method(absent_share=0.7, shown_share=0.3)
    build_method(absent_share=1 - 0.9, shown_share=0.9)
    build_method(absent_share=0.1 + 0.2, shown_share=0.7)
