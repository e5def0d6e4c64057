"""MT-Diffusion classifies: from the image alone, at the given times, one sample like another; no label leaks."""

from dataclasses import replace

import pytest
import torch

from tests.helpers import build_batch, build_method, generator
from tests.methods.build_extras import SETTINGS, batch_of, build
from tests.methods.spy import Spy


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


# What a head says, with other values of what it reads ----------------------------------------------------------


def outputs_of(network, name):
    """What the head has said at each call of a network that is watched."""
    with torch.no_grad():
        return [network.function(*call)[1][name] for call in network.calls]


@pytest.mark.parametrize("in_context", [False, True])
def test_other_labels_leave_the_logits_of_a_classification_alone(monkeypatch, in_context):
    method, batch = build_method(in_context=in_context, read_times=(0.1, 0.3)), build_batch(12)
    network = Spy(monkeypatch, method.network, "forward")
    for label in (batch["label"], 9 - batch["label"]):
        method.classify(batch | {"label": label})
    first, second = outputs_of(network, "label")[:2], outputs_of(network, "label")[2:]
    assert len(first) == len(second) == 2
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["label", "label in context", "segmentation", "feature", "feature_map"])
def test_in_training_other_values_reach_the_head_but_where_they_are_absent(monkeypatch, name):
    """Hidden ones leave a trace in z_t and shown ones are told: what the head says of these is no accuracy."""
    name, in_context = name.split(" ")[0], "in context" in name
    settings = {name: replace(SETTINGS[name], absent_share=0.3, shown_share=0.3, in_context=in_context)}
    method, batch, other = build(name, settings=settings), batch_of(40), batch_of(40, seed=1)
    values = (batch[name], 9 - batch["label"] if name == "label" else other[name])
    network = Spy(monkeypatch, method.network, "forward")
    tell = Spy(monkeypatch, method.extra(name).teller, "forward")
    for value in values:
        method.losses(batch | {name: value}, generator())
    _, is_shown, is_absent = tell.calls[0]
    first, second = outputs_of(network, name)
    is_same = (first == second).flatten(1).all(1)
    assert min(is_shown.sum(), is_absent.sum(), (~is_shown & ~is_absent).sum()) > 5
    assert torch.equal(is_same, is_absent)


@pytest.mark.parametrize("changes", [{"absent_share": 0.0}, {"weight": 0.0}])
def test_a_head_that_was_not_trained_does_not_classify(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))} of label is 0"):
        build_method(**changes).classify(build_batch(2))
