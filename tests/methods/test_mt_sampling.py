"""MT-Diffusion draws images and labels: from its seeds alone, known labels kept and others estimated."""

import pytest
import torch

from tests.helpers import build_batch, build_method, generator
from tests.methods.spy import Spy

# Samples -------------------------------------------------------------------------------------------------------


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


def test_predictions_do_not_see_their_targets():
    method, batch = build_method(), build_batch(4)
    other = batch | {"image": batch["image"].flip(0)}
    assert torch.equal(method.predict_step(batch, 0)["image"], method.predict_step(other, 0)["image"])


def test_a_model_trained_without_labels_draws_images_alone():
    method = build_method(absent_share=1.0, shown_share=0.0, weight=0.0)
    assert set(method.sample({}, seeds=[0])) == {"image", "index"}
    assert set(method.predict_step(build_batch(2), 0)) == {"image", "index"}


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


# Known and estimated labels ------------------------------------------------------------------------------------


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


# Mistakes ------------------------------------------------------------------------------------------------------

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
        ({}, {"head_guidance": 2.0}, "head_guidance is 2.0: expected None, as nothing is given"),
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


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_out_of_range_is_named(label):
    with pytest.raises(ValueError, match=rf"label is {label}: expected 0 to 9"):
        build_method().sample({"label": torch.tensor([3, label])}, seeds=[0, 1])


def test_labels_and_seeds_of_different_number_are_refused():
    with pytest.raises(ValueError, match=r"label has 3 entries, seeds has 2"):
        build_method().sample({"label": torch.arange(3)}, seeds=[0, 1])
