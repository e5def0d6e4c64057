"""The contrast over pairs: against the loss written out, and two processes against one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.methods.pairs_worker import CAPTIONS, compared, parts, queue

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


def test_earlier_texts_are_further_negatives_of_images_and_of_images_alone():
    weight, inputs, texts, scale = parts()
    images = inputs @ weight.T
    images = images / images.norm(dim=1, keepdim=True)
    held = queue().embeddings[:2]
    terms = []
    for i, row in enumerate(compared(slice(None))["loss"]):
        kept = [j for j in range(6) if j == i or CAPTIONS[j].lower().split() != CAPTIONS[i].lower().split()]
        scores = scale * images[i] @ texts[kept].T
        more = scale * images[i] @ held[1:].T if CAPTIONS[i] == "a two" else scale * images[i] @ held.T
        terms.append(row + (torch.cat([scores, more]).logsumexp(0) - scores.logsumexp(0)) / 2)
    made = compared(slice(None), queue())
    torch.testing.assert_close(made["loss"], torch.stack(terms).detach(), check_dtype=False)
    assert made["right"].tolist() == compared(slice(None))["right"].tolist()


def test_a_queue_holds_the_latest_texts():
    made = compared(slice(None), queue(7))["queue"]
    torch.testing.assert_close(made["embeddings"][:6], parts()[2])
    torch.testing.assert_close(made["embeddings"][6], parts()[2][1])
    assert made["is_held"].all()
    assert compared(slice(None), queue(12))["queue"]["is_held"].tolist() == [True] * 8 + [False] * 4


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


@pytest.mark.parametrize("name", ["alone", "earlier"])
def test_two_processes_have_the_losses_of_one(together, name):
    one, parts = compared(slice(None), *([queue()] if name == "earlier" else [])), [part[name] for part in together]
    torch.testing.assert_close(torch.cat([part["loss"] for part in parts]), one["loss"])
    for entry in ("right", "same"):
        assert torch.equal(torch.cat([part[entry] for part in parts]), one[entry])
    for part in parts:
        assert all(torch.equal(part["queue"][entry], value) for entry, value in one["queue"].items())


@pytest.mark.parametrize("name", ["alone", "earlier"])
def test_the_mean_gradient_of_two_processes_is_that_of_one(together, name):
    one = compared(slice(None), *([queue()] if name == "earlier" else []))["gradients"]
    for number, expected in enumerate(one):
        mean = (together[0][name]["gradients"][number] + together[1][name]["gradients"][number]) / 2
        torch.testing.assert_close(mean, expected, atol=1e-8, rtol=1e-8)
