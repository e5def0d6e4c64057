"""Inception Score against torch-fidelity and closed forms."""

import math
import pickle

import pytest
import torch
from torch_fidelity import metric_isc

from mmdiffusion.metrics import InceptionScore
from mmdiffusion.metrics.inception import canonical_order, inception_score


@pytest.fixture
def images(generator):
    return torch.randn(53, 3, 4, 4, generator=generator) / 2


def measured(extractor, images, split_size=5, batch_size=16, seed=2020):
    metric = InceptionScore(extractor, split_size=split_size, seed=seed)
    for part in images.split(batch_size):
        metric.update(part)
    return metric


def test_closed_forms():
    assert inception_score(torch.eye(7) * 1e4).item() == pytest.approx(7)
    assert inception_score(torch.ones(5, 4)).item() == pytest.approx(1)
    two_of_three = torch.tensor([[0.0, -math.inf, 0.0]]).nan_to_num(neginf=-1e4).repeat(6, 1)
    assert inception_score(two_of_three).item() == pytest.approx(1)


@pytest.mark.parametrize("num_splits", [1, 4, 12])
def test_equals_torch_fidelity_on_the_same_logits(projection, images, num_splits):
    images = images[:48]
    metric = measured(projection, images, 48 // num_splits)
    ordered = canonical_order(projection.logits(images))
    expected = metric_isc.isc_features_to_metric(ordered, num_splits, True, 2020)
    assert expected["inception_score_mean"] > 1.01
    assert metric.compute().item() == pytest.approx(expected["inception_score_mean"], rel=1e-6)
    assert metric.protocol()["spread"] == pytest.approx(expected["inception_score_std"], rel=1e-4, abs=1e-12)


def test_one_split_equals_torch_fidelity_in_any_order(projection, images):
    expected = metric_isc.isc_features_to_metric(projection.logits(images), 1, False)
    assert measured(projection, images, 53).compute().item() == pytest.approx(
        expected["inception_score_mean"], rel=1e-6
    )


def test_order_and_batches_do_not_matter_but_the_seed_does(projection, images):
    images = torch.cat([images, images[:9]])
    whole = measured(projection, images, batch_size=100).compute().item()
    assert measured(projection, images.flip(0), batch_size=5).compute().item() == pytest.approx(whole, rel=1e-6)
    assert measured(projection, images, seed=1).compute().item() != pytest.approx(whole, rel=1e-6)


def test_canonical_order_keeps_every_row(generator):
    rows = torch.randint(3, (50, 2), generator=generator).float()
    ordered = canonical_order(rows)
    assert sorted(rows.tolist()) == ordered.tolist()
    assert torch.equal(ordered, canonical_order(rows.flip(0)))


def test_the_global_generator_is_left_alone(projection, images):
    before = torch.get_rng_state()
    measured(projection, images).compute()
    assert torch.equal(torch.get_rng_state(), before)


def test_real_digits_score_high(classifier, digits):
    metric = measured(classifier, digits.test_images, len(digits.test_images))
    assert 8 < metric.compute().item() <= 10
    assert metric.name() == "is[digits-cnn]"


def test_protocol_state_and_reset(projection, images):
    metric = measured(projection, images)
    assert not metric.state_dict()
    assert not list(metric.children())
    metric.compute()
    protocol = metric.protocol()
    assert float(protocol.pop("spread")) > 0
    assert protocol == {"extractor": "random projection", "num_samples": 53, "split_size": 5, "seed": 2020}
    metric.reset()
    assert (metric.num_samples, metric.spread) == (0, 0.0)


def test_a_last_smaller_part_is_left_out(projection, images):
    scores = measured(projection, images, 20)
    assert scores.compute().item() == pytest.approx(
        torch.stack([inception_score(p) for p in parts(scores)]).mean().item()
    )
    assert [len(part) for part in parts(scores)] == [20, 20]


def parts(metric):
    return metric._splits(canonical_order(torch.cat(metric.rows).view(metric.num_samples, -1)))


def test_pickles(classifier, digits):
    metric = measured(classifier, digits.test_images[:40])
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.compute().item() == metric.compute().item() > 1


def test_errors(projection, images):
    with pytest.raises(ValueError, match=r"split_size is 1: expected at least 2"):
        InceptionScore(projection, split_size=1)
    with pytest.raises(ValueError, match=r"is\[projection\]: found 3 samples, split_size is 5"):
        measured(projection, images[:3]).compute()
    with pytest.raises(ValueError, match=r"is\[projection\]: found 0 samples"):
        InceptionScore(projection).compute()
