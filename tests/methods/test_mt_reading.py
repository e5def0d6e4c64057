"""MT-Diffusion reads what it is not given off a known image, beside other extras that are known."""

import pytest
import torch

from mmdiffusion.diffusion import CosineSchedule
from mmdiffusion.seeding import SampleNoise
from tests.methods.build_extras import T, batch_of, build

READ_STEPS = (5, 15)
"""Of the 50, at t / T = 0.1 and 0.3."""


def known_of(name, seed):
    return {"image": batch_of(8)["image"], name: batch_of(8, seed)[name]}


@pytest.mark.parametrize("name", ["masked", "segmentation", "feature", "feature_map"])
def test_a_known_extra_is_aggregated_and_shown_where_another_is_read(name):
    """The mean of the head's probabilities over noisy states made by hand, in which the label is nowhere."""
    method, known = build("label", name, read_times=(0.1, 0.3)), known_of(name, 1)
    extra, noise, alpha_bar = method.extra(name), SampleNoise(0, range(8)), CosineSchedule(T).alpha_bar()
    clean, encoding = method.space.lift(known["image"]), method.space.lift(extra.encode(known[name]), extra)
    nowhere = method.extra("label").teller.unknown(8, is_absent=True)
    shown = extra.teller(known[name], torch.ones(8, dtype=torch.bool), torch.zeros(8, dtype=torch.bool))
    expected = torch.zeros(8, 10)
    for t in READ_STEPS:
        free = alpha_bar[t].sqrt().float() * clean
        free += (1 - alpha_bar[t]).sqrt().float() * noise.normal(method.space.shape)
        noisy = free + method.diffusion.drift_table(name)[t] * encoding
        with torch.no_grad():
            _, outputs = method.network(noisy, torch.full((8,), t), [nowhere, shown])
        expected += outputs["label"].softmax(1) / len(READ_STEPS)
    read = method.read(known["image"], {name: known[name]}, ["label"], torch.arange(8))["label"]
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["masked", "segmentation", "feature", "feature_map"])
def test_another_value_of_a_known_extra_changes_the_label_that_is_read(name):
    method = build("label", name)
    first, again, second = (method.sample(known_of(name, seed), seeds=range(8))["label"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
