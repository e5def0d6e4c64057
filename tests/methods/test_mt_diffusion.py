"""MT-Diffusion (arXiv 2407.17571): its loss, the three states of a label, sampling, classification, errors."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from mmdiffusion.diffusion import CosineSchedule, LinearDrift, NoDrift
from mmdiffusion.methods.joint_predictor import JointPredictor
from mmdiffusion.methods.joint_requests import JointRequest
from mmdiffusion.nn import Denoiser, Level, MiddleHead, OutputHead
from mmdiffusion.types import ImageSpec, TextSpec
from tests.helpers import SPEC, build_batch, build_method, generator

T = 50


class Spy:
    """Calls a function and keeps what went in."""

    def __init__(self, monkeypatch, owner, name):
        self.function, self.calls = getattr(owner, name), []
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *args, **kwargs):
        self.calls.append(args)
        return self.function(*args, **kwargs)


def count_calls(method):
    calls = []
    method.network.denoiser.register_forward_hook(lambda *_: calls.append(1))
    return calls


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


def predictor(method, label, guidance=1.0, head_guidance=0.0):
    """The prediction for given labels."""
    request = JointRequest({}, ("image",), guidance, head_guidance, 1.0)
    return JointPredictor(method, {"label": label}, request, len(label))


# Sampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun"])
@pytest.mark.parametrize("kind", ["joint", "conditional", "alone"])
def test_a_sample_does_not_depend_on_its_batch(sampler, kind):
    method = build_method(sampler=sampler)
    seeds = list(range(64))

    def draw(chunk):
        condition = {"label": torch.tensor(chunk) % 10} if kind == "conditional" else {}
        return method.sample(condition, seeds=chunk, drawn=["image"] if kind == "alone" else None)["image"]

    together = draw(seeds)
    assert together.shape == (64, 1, 8, 8)
    assert together.flatten(1).std(0).min() > 0.01, "equal samples would prove nothing"
    sevens = torch.cat([draw(seeds[i : i + 7]) for i in range(0, 64, 7)])
    torch.testing.assert_close(sevens, together, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat([draw([i]) for i in (0, 9, 63)]), together[[0, 9, 63]], atol=1e-4, rtol=0)


def test_samples_are_in_range_and_named():
    method = build_method()
    joint = method.sample({}, seeds=[4, 2])
    assert joint["index"].tolist() == [4, 2]
    assert joint["image"].abs().max() <= 1
    assert joint["label"].dtype == torch.int64
    assert joint["label"].shape == (2,)
    assert set(method.sample({}, seeds=[1], drawn=["image"])) == {"image", "index"}


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun"])
def test_a_known_label_is_encoded_at_every_step_and_comes_back(monkeypatch, sampler):
    method, label = build_method(sampler=sampler), torch.tensor([3, 0, 9])
    expectation = Spy(monkeypatch, method.extra("label"), "expectation")
    steps = Spy(monkeypatch, method.diffusion, "drift")
    samples = method.sample({"label": label}, seeds=[0, 1, 2])
    assert torch.equal(samples["label"], label)
    assert not expectation.calls, "no guess takes the place of what is known"
    expected = method.extra("label").encode(label)
    assert len(steps.calls) >= 2 * method.steps
    for _, encodings, _ in steps.calls:
        torch.testing.assert_close(encodings["label"], expected, atol=1e-6, rtol=0)


def test_joint_sampling_aggregates_the_expected_encoding(monkeypatch):
    method = build_method()
    spy = Spy(monkeypatch, method.extra("label"), "expectation")
    evaluate = Spy(monkeypatch, method.diffusion, "drift")
    method.sample({}, seeds=[0, 1])
    assert len(spy.calls) == method.steps
    probabilities = spy.calls[0][0].softmax(1)
    assert probabilities.max() < 1
    mean = torch.einsum("bk,kchw->bchw", probabilities, method.extra("label").encoder.table)
    torch.testing.assert_close(evaluate.calls[0][1]["label"], mean)


def test_joint_label_is_the_last_guess(monkeypatch):
    method = build_method()
    spy = Spy(monkeypatch, method.extra("label"), "expectation")
    samples = method.sample({}, seeds=list(range(8)))
    assert torch.equal(samples["label"], spy.calls[-1][0].argmax(1))


def test_guidance_zero_is_the_unconditional_prediction_of_the_drift_free_state():
    method, label, time = build_method(drift=LinearDrift(0.5)), torch.arange(4), torch.full((4,), 30)
    noisy = build_batch(4)["image"]
    prediction, encodings = predictor(method, label, 0.0)(noisy, time)
    free = method.diffusion.drift_free(noisy, time, encodings)
    assert not torch.equal(free, noisy)
    assert torch.equal(prediction, method.network(free, time, method.network.tell({}, (), 4))[0])


def test_guidance_zero_ignores_the_shown_label():
    method, label = build_method(drift=NoDrift()), torch.tensor([1, 5])
    given = method.sample({"label": label}, seeds=[0, 1], guidance=0.0)["image"]
    assert torch.equal(given, method.sample({}, seeds=[0, 1], drawn=["image"])["image"])
    assert not torch.equal(given, method.sample({"label": label}, seeds=[0, 1], guidance=1.0)["image"])


def test_guidance_is_linear_in_drift_free_coordinates():
    method, label, time = build_method(), torch.arange(4), torch.full((4,), 20)
    noisy = build_batch(4)["image"]
    none, one, two = (predictor(method, label, g)(noisy, time)[0] for g in (0.0, 1.0, 2.0))
    torch.testing.assert_close(two - none, 2 * (one - none), atol=1e-5, rtol=1e-4)


def test_bayes_rule_through_the_shipped_guidance(monkeypatch):
    """With exact networks for Gaussian classes, head guidance of 1 on the unconditional is the conditional."""
    method, label, t, deviation = build_method(), torch.arange(4), 30, 0.3
    time, centres = torch.full((4,), t), torch.randn(10, 64, generator=generator()).mul(0.2)
    alpha_bar = CosineSchedule(T).alpha_bar()[t]
    signal, sigma = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
    spread = (signal * deviation) ** 2 + sigma**2

    def velocity(free, clean):
        return (signal * (free - signal * clean) / sigma - sigma * clean).reshape(-1, 1, 8, 8)

    def clean_of(free, chosen):
        return chosen + signal * deviation**2 / spread * (free - signal * chosen)

    def exact(noisy, time, told):
        if torch.equal(told[0].vector, method.network.tell({}, (), 4)[0].vector):
            free = noisy.flatten(1)
            logits = -(free[:, None] - signal * centres).square().sum(-1) / (2 * spread)
            mean = torch.einsum("bk,bkd->bd", logits.softmax(1), clean_of(free[:, None], centres))
            return velocity(free, mean), {"label": logits}
        encodings = {"label": method.extra("label").encode(label)}
        free = method.diffusion.drift_free(noisy, time, encodings).flatten(1)
        return velocity(free, clean_of(free, centres[label])), {"label": torch.zeros(len(noisy), 10)}

    monkeypatch.setattr(method.network, "forward", exact)
    noisy = build_batch(4)["image"]
    shown, guided, alone = (
        predictor(method, label, guidance, head)(noisy, time)[0]
        for guidance, head in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
    )
    assert (alone - shown).abs().max() > 0.1
    torch.testing.assert_close(guided, shown, atol=1e-5, rtol=1e-4)


def test_the_mean_encoding_gives_the_mean_step_and_that_of_the_guess_does_not():
    method, draw = build_method(), generator()
    noisy, prediction = (torch.randn(1, 1, 8, 8, generator=draw) for _ in range(2))
    time, target = torch.tensor([30]), torch.tensor([20])
    probabilities = torch.rand(10, generator=draw)
    probabilities = probabilities / probabilities.sum()

    def stepped(encoding):
        noise = torch.zeros_like(noisy)
        predict = lambda *_: (prediction, {"label": encoding})  # noqa: E731
        return method.diffusion.step(predict, noisy, time, target, sampler="ddpm", noise=noise)

    table = method.extra("label").encode(torch.arange(10))
    mean = sum(p * stepped(encoding[None]) for p, encoding in zip(probabilities, table, strict=True))
    torch.testing.assert_close(stepped(method.extra("label").expectation(probabilities[None].log())), mean)
    assert (stepped(table[probabilities.argmax()][None]) - mean).abs().max() > 0.01


def test_head_guidance_moves_the_sample_by_the_gradient_of_the_head():
    method, label, time = build_method(), torch.arange(4), torch.full((4,), 20)
    noisy = build_batch(4)["image"]
    plain, encodings = predictor(method, label)(noisy, time)
    guided, _ = predictor(method, label, head_guidance=2.0)(noisy, time)
    free = method.diffusion.drift_free(noisy, time, encodings).requires_grad_()
    logits = method.network(free, time, method.network.tell({}, (), 4))[1]["label"]
    (gradient,) = torch.autograd.grad(-F.cross_entropy(logits, label, reduction="sum"), free)
    before = method.diffusion.predict_noise(noisy, time, plain)
    after = method.diffusion.predict_noise(noisy, time, guided)
    sigma = (1 - CosineSchedule(T).alpha_bar()[20]).sqrt().float()
    torch.testing.assert_close(after - before, -2 * sigma * gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("guidance", "head_guidance", "calls"), [(1.0, 0.0, 1), (0.0, 0.0, 2), (2.0, 0.0, 2), (1.0, 1.0, 2), (0.0, 1.0, 2)]
)
def test_network_calls_a_step(guidance, head_guidance, calls):
    method = build_method()
    count = count_calls(method)
    method.sample({"label": torch.arange(2)}, seeds=[0, 1], guidance=guidance, head_guidance=head_guidance)
    assert len(count) == calls * method.steps


def test_nothing_draws_from_the_global_generator():
    method = build_method(sampler="ddpm")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    method.losses(build_batch(), generator())
    method.sample({}, seeds=[0])
    method.sample({"label": torch.tensor([1])}, seeds=[0], guidance=2.0, head_guidance=1.0)
    method.classify(build_batch(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_sampling_keeps_no_graph():
    method = build_method()
    samples = method.sample({"label": torch.tensor([1])}, seeds=[0], head_guidance=1.0)
    assert not samples["image"].requires_grad
    assert all(parameter.grad is None for parameter in method.parameters())


NOTHING = {"absent_share": 0.0, "shown_share": 0.0}
GIVEN = {"condition": {"label": torch.tensor([1])}}


@pytest.mark.parametrize(
    ("shares", "request_", "message"),
    [
        ({}, {"drawn": ["label"]}, "drawn is .'label'.: expected image among them"),
        ({}, {"drawn": []}, "drawn is ..: expected some of image, label"),
        ({}, {"drawn": ["image", "caption"]}, "drawn is 'caption': expected image or label"),
        ({}, {"condition": {"caption": ["a seven"]}}, "given is 'caption': expected image or label"),
        (NOTHING, {"condition": {"image": torch.zeros(1, 1, 8, 8)}}, "given is 'image': expected nothing"),
        ({}, {"condition": {"image": torch.zeros(1, 1, 4, 4)}}, r"image is \(1, 4, 4\): expected \(1, 8, 8\)"),
        ({}, {"condition": {"image": torch.zeros(1, 1, 8, 8)} | GIVEN["condition"]}, "expected something left to draw"),
        ({"weight": 0.0}, GIVEN | {"head_guidance": 1.0}, "weight of label is 0.* for guidance by its head"),
        ({}, {"guidance": 2.0}, "guidance is 2.0: expected None, as nothing is given"),
        ({}, {"head_guidance": 2.0}, "guidance is 2.0: expected None, as nothing is given"),
        (NOTHING, GIVEN, "given is 'label': expected nothing from this model"),
        (
            NOTHING,
            {"drawn": ["image"]},
            "absent_share of label is 0: expected above 0 in training, for drawing images without",
        ),
        (NOTHING | {"shown_share": 0.5}, GIVEN | {"guidance": 2.0}, "absent_share of label is 0.* for guidance"),
        (
            {"absent_share": 1.0, "shown_share": 0.0},
            {"drawn": ["image", "label"]},
            "drawn has label, whose absent_share",
        ),
    ],
)
def test_a_request_that_the_model_cannot_serve_is_named(shares, request_, message):
    with pytest.raises(ValueError, match=message):
        build_method(**shares).sample(**{"condition": {}, "seeds": [0]} | request_)


@pytest.mark.parametrize("changes", [{"absent_share": 0.0}, {"weight": 0.0}])
def test_a_head_that_was_not_trained_does_not_classify(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))} of label is 0"):
        build_method(**changes).classify(build_batch(2))


def test_a_model_trained_without_labels_draws_images_alone():
    method = build_method(absent_share=1.0, shown_share=0.0, weight=0.0)
    assert set(method.sample({}, seeds=[0])) == {"image", "index"}
    assert set(method.predict_step(build_batch(2), 0)) == {"image", "index"}


def test_predictions_do_not_see_their_targets():
    method, batch = build_method(), build_batch(4)
    other = batch | {"image": batch["image"].flip(0)}
    assert torch.equal(method.predict_step(batch, 0)["image"], method.predict_step(other, 0)["image"])


def test_head_guidance_works_where_lightning_evaluates():
    method, label = build_method(), torch.tensor([1, 2])
    expected = method.sample({"label": label}, seeds=[0, 1], head_guidance=1.0)["image"]
    with torch.inference_mode():
        drawn = method.sample({"label": label + 0}, seeds=[0, 1], head_guidance=1.0)["image"]
        assert torch.equal(drawn, expected)


# Classification ------------------------------------------------------------------------------------------------


class Sealed(dict):
    """A batch whose label must not be read."""

    def __getitem__(self, key):
        assert key != "label"
        return super().__getitem__(key)

    def get(self, key, default=None):
        assert key != "label"
        return super().get(key, default)


def test_classify_does_not_read_the_label():
    method, batch = build_method(), build_batch(12)
    probabilities = method.classify(Sealed(batch))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(12))
    assert torch.equal(method.classify(batch | {"label": batch["label"].flip(0)}), probabilities)
    assert torch.equal(method.classify({k: batch[k] for k in ("image", "index")}), probabilities)


def test_classify_aggregates_and_shows_nothing(monkeypatch):
    method, batch = build_method(read_times=(0.1, 0.3)), build_batch(4)
    corrupt, denoise = Spy(monkeypatch, method.diffusion, "corrupt"), Spy(monkeypatch, method.network, "forward")
    method.classify(batch)
    assert [int(call[1][0]) for call in corrupt.calls] == [5, 15]
    assert not any(call[3] for call in corrupt.calls)
    for _, _, told in denoise.calls:
        assert torch.equal(told[0].vector, method.network.tell({}, (), 4)[0].vector)


def test_classify_depends_on_the_index_not_on_the_batch():
    method, batch = build_method(), build_batch(12)
    alone = method.classify({"image": batch["image"][5:6], "index": batch["index"][5:6]})
    torch.testing.assert_close(method.classify(batch)[5:6], alone, atol=1e-5, rtol=0)


# Errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_out_of_range_is_named(label):
    with pytest.raises(ValueError, match=rf"label is {label}: expected 0 to 9"):
        build_method().sample({"label": torch.tensor([3, label])}, seeds=[0, 1])


def test_labels_and_seeds_of_different_number_are_refused():
    with pytest.raises(ValueError, match=r"label has 3 entries, seeds has 2"):
        build_method().sample({"label": torch.arange(3)}, seeds=[0, 1])


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
