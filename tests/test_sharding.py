"""Weights in shards: two processes that keep half of everything each train what two with whole weights train."""

import math
import signal

import pytest
import torch

from tests.resuming import differences, run_two


def run_worker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    processes, errors = run_two("sharding_worker.py", folder, timeout=300)
    return [process.returncode for process in processes], errors, folder


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `sharding_worker.py` found in each of two processes.

    A second time where one ends by a segmentation fault: in one of the first seven runs, on a crowded computer,
    PyTorch 2.15's thread for gloo crashed in a process that was gathering the optimizer's state (docs/reproducing.md).
    """
    statuses, errors, folder = run_worker(tmp_path_factory)
    if -signal.SIGSEGV in statuses:
        statuses, errors, folder = run_worker(tmp_path_factory)
    assert statuses == [0, 0], "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)], folder


def furthest(found, expected):
    """The largest difference of two nests of tensors, as a share of the largest number of its tensor."""
    if isinstance(expected, dict | list):
        assert len(found) == len(expected)
        keys = expected if isinstance(expected, dict) else range(len(expected))
        return max((furthest(found[key], expected[key]) for key in keys), default=0.0)
    if not isinstance(expected, torch.Tensor):
        return 0.0 if found == expected else math.inf
    assert found.shape == expected.shape
    found, expected = found.double(), expected.double()
    return ((found - expected).abs().max() / expected.abs().max().clamp(1e-8)).item() if found.numel() else 0.0


# Trainings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cdcd", "diffdis"])
def test_shards_train_what_whole_weights_train(found, name):
    """Weights, average, optimizer and validations, to the bit: the mean of two processes rounds in one way alone."""
    for one in found[0]:
        assert differences(one[name]["shards"], one[name]["whole"]) == []


def test_clipping_knows_the_whole_gradient_of_several_batches(found):
    """Its norm is a sum of squares in another order, as is a sum of two batches; so is every later weight."""
    for one in found[0]:
        assert furthest(one["mt_diffusion"]["shards"], one["mt_diffusion"]["whole"]) < 1e-4


def test_a_training_goes_on_in_shards_or_without(found):
    for one in found[0]:
        assert one["gone on"]["batches"] == 10, "two a step"
        without_validations = {key: one["mt_diffusion"]["shards"][key] for key in one["gone on"]["shards"]}
        assert differences(one["gone on"]["shards"], without_validations) == []
        assert furthest(one["gone on"]["whole"], without_validations) < 1e-4


def test_one_process_draws_with_whole_weights(found):
    shards, whole = (
        {path.name: path.read_bytes() for path in (found[1] / "mt_diffusion" / kind / "samples").iterdir()}
        for kind in ("shards", "whole")
    )
    assert len(whole) == 2
    assert shards == whole


def test_each_process_keeps_its_part(found):
    """Weights and optimizer; a process has up to one row of a weight more than another."""
    one, two = (process["mt_diffusion"]["kept"] for process in found[0])
    assert one["whole"] == two["whole"]
    for kept, other, all_of_it in zip(one["shards"], two["shards"], one["whole"], strict=True):
        assert kept + other == pytest.approx(all_of_it, rel=1e-3)
        assert max(kept, other) < 0.52 * all_of_it


def test_a_bad_step_is_skipped_in_all_processes(found):
    """The weight has one number: a process without any part of it knows of the step as well."""
    for one in found[0]:
        whole, shards = one["bad"]
        assert shards == whole
        assert shards[0] == 1


def test_what_needs_whole_weights_is_refused(found):
    for one in found[0]:
        optimizer, compiled, share = one["refused"]
        assert optimizer.startswith("optimizer is MuonAdamW, strategy is Shards: expected AdamW, Adam or SGD")
        assert "callback Compile is set, strategy is Shards" in compiled
        assert "callback GradientShare is set, strategy is Shards" in share
