"""The comparison with peers: its table, what it counts as work, and what it says where a peer is missing."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.peers import sampling
from benchmarks.peers.__main__ import SECTIONS, check_peers, main
from benchmarks.peers.distances import Given, feed
from benchmarks.peers.steps import count_flops, peak_memory, training_step
from benchmarks.peers.table import Row, markdown, ratios
from mmdiffusion.metrics import FrechetDistance


def test_a_row_says_whether_the_median_reaches_the_bar():
    row = Row("speed over a peer", 1.2, True, [1.0, 1.5, 1.3], "2 s", "3 s")
    table = markdown([row])
    assert table.splitlines()[2] == (
        "| speed over a peer | at least 1.20 x | 1.30 x | 1.15 x to 1.40 x | yes | 2 s | 3 s |"
    )
    assert not Row("memory", 0.8, False, [0.9], "").is_reached
    assert Row("time", 30, False, [0.9], "", form="{:.1f} ms").cells()[:5] == [
        "time",
        "at most 30.0 ms",
        "0.9 ms",
        "",
        "yes",
    ]


def test_ratios_are_taken_within_a_round():
    assert ratios([2.0, 9.0], [1.0, 3.0], 0.5) == [1.0, 1.5]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_trains(precision):
    torch.manual_seed(0)
    model, x = nn.Linear(3, 1), torch.randn(8, 3)
    step = training_step(model, lambda: model(x).float().square().mean(), precision)
    before = model(x).square().mean().item()
    for _ in range(3):
        step()
    assert model(x).square().mean().item() < before


def test_fused_attention_is_counted_like_plain_products():
    heads = torch.randn(3, 2, 4, 16, 8, requires_grad=True)

    def fused():
        scaled_dot_product_attention(*heads).sum().backward()

    def plain():
        queries, keys, values = heads
        ((queries @ keys.mT * 8**-0.5).softmax(-1) @ values).sum().backward()

    assert count_flops(fused) == count_flops(plain) > 0


def test_peak_memory_sees_what_was_given_back():
    """In a process of its own: this one may have been larger before."""
    program = "import torch; from benchmarks.peers.steps import peak_memory as peak; before = peak()\n"
    program += "x = torch.ones(2**26); del x; print(peak() - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 4 * 2**26 * 0.9 < int(done.stdout) < 4 * 2**26 * 1.2
    assert peak_memory() > 2**26


@pytest.mark.parametrize("build", [sampling.gaussian, sampling.discrete])
def test_sampling_runs_without_its_network(build):
    sample = build()
    made = sample()
    assert {len(value) for value in made.values()} == {len(sample.keywords["seeds"])}


def test_statistics_do_not_grow():
    metric = FrechetDistance(Given())
    first, last = feed(metric, {True: torch.randn(1001, 2048), False: torch.randn(1001, 2048)})
    assert first == last
    assert metric.real_count == 1001


def test_a_missing_peer_is_named(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_peers(["fid"])
    missing = "denoising-diffusion-pytorch, diffusers, transformers: not installed; pip install"
    with pytest.raises(ValueError, match=missing):
        check_peers(list(SECTIONS))
    monkeypatch.setattr(sys, "argv", ["peers", "unets"])
    with pytest.raises(SystemExit):
        main()
    assert "pip install 'mmdiffusion[bench]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"), [(["speed"], "no section speed: expected some of unets"), (["--rounds", "0"], "--rounds is 0")]
)
def test_wrong_words_are_refused(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peers", *words])
    with pytest.raises(SystemExit):
        main()
    assert said in capsys.readouterr().err
