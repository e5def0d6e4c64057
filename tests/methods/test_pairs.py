"""The contrast over pairs: against the loss written out, and two processes against one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.methods.pairs_worker import CAPTIONS, compared, parts

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_the_loss_over_all_pairs_that_are_true_negatives():
    weight, inputs, texts, scale = parts()
    images = inputs @ weight.T
    images = images / images.norm(dim=1, keepdim=True)
    words = [caption.lower().split() for caption in CAPTIONS]
    expected = []
    for i in range(6):
        kept = [j for j in range(6) if j == i or words[j] != words[i]]
        for first, second in ((images, texts), (texts, images)):
            scores = torch.stack([scale * first[i] @ second[j] for j in kept])
            expected.append(scores.logsumexp(0) - scale * first[i] @ second[i])
    made = compared(slice(None))
    torch.testing.assert_close(made["loss"].mean(), torch.stack(expected).mean().detach(), check_dtype=False)
    assert made["same"].tolist() == [1, 1, 1, 0, 0, 1]
    nearest = (images @ texts.T).argmax(1)
    assert made["right"].tolist() == [words[i] == words[j] for i, j in enumerate(nearest.tolist())]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes make of a half each."""
    folder = tmp_path_factory.mktemp("pairs")
    worker = Path(__file__).with_name("pairs_worker.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, worker, str(rank), folder], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_have_the_losses_of_one(together):
    alone = compared(slice(None))
    torch.testing.assert_close(torch.cat([part["loss"] for part in together]), alone["loss"])
    for entry in ("right", "same"):
        assert torch.equal(torch.cat([part[entry] for part in together]), alone[entry])


def test_the_mean_gradient_of_two_processes_is_that_of_one(together):
    alone = compared(slice(None))["gradients"]
    for number, expected in enumerate(alone):
        mean = (together[0]["gradients"][number] + together[1]["gradients"][number]) / 2
        torch.testing.assert_close(mean, expected, atol=1e-8, rtol=1e-8)
