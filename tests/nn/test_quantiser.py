"""The codebook: nearest codes, running means, codes that start again, and nothing hidden."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmdiffusion.nn.quantiser import draw_over_processes
from tests.nn.codebook_worker import build, encodings, generator

ROOT = Path(__file__).resolve().parents[2]


def state(quantiser):
    return {name: value.clone() for name, value in quantiser.state_dict().items()}


def test_tokens_are_the_nearest_codes_by_brute_force():
    quantiser, x = build(), encodings()
    book = quantiser.lookup.codebook
    expected = [[min(range(6), key=lambda k: float((v - book[k]).square().sum())) for v in row] for row in x]
    assert quantiser.tokens(x).tolist() == expected
    codes, tokens, commitment = quantiser.eval()(x)
    assert tokens.tolist() == expected
    assert torch.equal(codes, book[tokens])
    torch.testing.assert_close(commitment, (x - book[tokens]).square().mean())


def test_training_and_evaluation_agree_on_one_codebook():
    quantiser, x = build(), encodings()
    evaluated = copy.deepcopy(quantiser).eval()(x)
    for now, then in zip(quantiser.train()(x, generator()), evaluated, strict=True):
        torch.testing.assert_close(now, then)


def test_a_step_moves_each_code_to_the_running_mean_of_its_encodings():
    """N <- 0.9 N + 0.1 n, m <- 0.9 m + 0.1 sum, code = m / N (van den Oord et al. 2017, App. A.1)."""
    quantiser, x = build(), encodings()
    tokens = quantiser.tokens(x).flatten()
    book = quantiser.lookup.codebook.clone()
    quantiser.train()(x, generator())
    for k in range(6):
        mine = x.flatten(0, 1)[tokens == k]
        size, total = 0.9 + 0.1 * len(mine), 0.9 * book[k] + 0.1 * mine.sum(0)
        torch.testing.assert_close(quantiser.lookup.codebook[k], total / size, rtol=1e-3, atol=1e-4)


def test_evaluation_changes_nothing():
    quantiser = build(revive_below=1.0).eval()
    before = state(quantiser)
    quantiser(encodings())
    quantiser.train().tokens(encodings())
    assert all(torch.equal(value, before[name]) for name, value in quantiser.state_dict().items())


def test_gradients_reach_the_encodings():
    x = encodings().requires_grad_()
    codes, _, commitment = build().train()(x, generator())
    (codes.sum() + commitment).backward()
    assert x.grad is not None
    assert x.grad.abs().sum(-1).min() > 0


def test_a_code_out_of_use_starts_again_at_an_encoding():
    quantiser, x = build(revive_below=0.95), encodings()
    with torch.no_grad():
        for name in ("embed", "embed_avg"):
            quantiser.state_dict()[f"lookup._codebook.{name}"][:, 2] = 100.0
    quantiser.train()(x, generator())
    code = quantiser.lookup.codebook[2]
    assert ((x.flatten(0, 1) - code).abs().amax(1) < 1e-6).any()


def test_draws_come_from_the_generator_alone():
    def trained(seed):
        quantiser, x = build(64, revive_below=1.0), encodings()
        quantiser.train()(x, generator(seed))
        return quantiser.lookup.codebook

    before = torch.get_rng_state()
    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_around_it_changes_nothing():
    quantiser, x = build(64), encodings().bfloat16().float()
    expected = [part.clone() for part in copy.deepcopy(quantiser).train()(x, generator())]
    with torch.autocast("cpu", torch.bfloat16):
        tokens = quantiser.tokens(x.bfloat16())
        found = quantiser.train()(x.bfloat16(), generator())
    assert torch.equal(tokens, expected[1])
    for now, then in zip(found, expected, strict=True):
        assert now.dtype == then.dtype
        assert torch.equal(now, then)


def test_draws_alone_are_rows_of_the_batch():
    x = encodings()[:1]
    drawn = draw_over_processes(x, 5, generator=generator())
    assert all((x[0] == row).all(1).any() for row in drawn[0])


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Codebooks of two processes, each with half of the batch: without and with codes that start again."""
    folder = tmp_path_factory.mktemp("codebook")
    worker = Path(__file__).with_name("codebook_worker.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", worker, str(rank), folder], env=environment, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_share_one_codebook(together):
    for first, second in zip(*together, strict=True):
        assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_two_processes_learn_what_one_learns(together):
    alone = build().train()
    for step in range(3):
        alone(encodings(seed=step), generator(step))
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(together[0][0][name], value)


def test_codes_start_again_at_the_batches_of_both_in_turn(together):
    """Above any use, every code of every step starts again."""
    book = together[0][1]["lookup._codebook.embed"][0]
    for rank in range(2):
        own = encodings(seed=2)[2 * rank : 2 * rank + 2].flatten(0, 1)
        is_own = ((own[:, None] - book).abs().amax(-1) < 1e-6).any(0)
        assert is_own.tolist() == [turn % 2 == rank for turn in range(6)]
