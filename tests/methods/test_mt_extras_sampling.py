"""MT-Diffusion with any extra modalities draws what is not known, whatever is."""

import itertools

import pytest
import torch

from mmdiffusion.methods.extras import Extra
from mmdiffusion.nn import MiddleHead, TableEncoder
from tests.methods.build_extras import DRIFT, FOUR, SETTINGS, batch_of, build

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
    with pytest.raises(
        ValueError, match="weight of label is 0: expected above 0 in training, for a head that draws it"
    ):
        method.sample({}, seeds=[0], drawn=["image", "label"])
