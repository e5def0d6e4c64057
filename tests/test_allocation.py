"""Freed memory stays with a process: counted by the pages that the system has to hand out again."""

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from mmdiffusion import allocation
from mmdiffusion.experiment import MMDiffusionCLI
from tests.helpers import write_config

IS_GLIBC = platform.libc_ver()[0] == "glibc"
PROGRAM = """
import ctypes, resource, sys
import torch
from mmdiffusion.allocation import keep_freed_memory

def num_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10_000_000)  # 40 MB, more than glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if not ctypes.CDLL(None).mallopt(-3, 2**30):
    sys.exit()
ctypes.CDLL(None).mallopt(-3, 2**25)
torch.set_num_threads(1)
given_back = num_faults()
assert keep_freed_memory()
for _ in range(4):
    num_faults()  # what a tensor left is a few bytes too short for the next while small things lie close behind it
print(given_back, num_faults())
"""


@pytest.mark.skipif(not IS_GLIBC, reason="another C library")
def test_memory_of_one_tensor_serves_the_next():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("an older glibc, which keeps no tensor of more than 32 MB")
    given_back, kept = (int(word) for word in done.stdout.split())
    assert kept < given_back / 20


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocation.sys, "platform", "darwin")
    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: pytest.fail("asked for a library"))
    assert not allocation.keep_freed_memory()


@pytest.mark.parametrize(
    ("most", "asked", "kept"),
    [
        (2**30, [(-3, 2**30), (-1, -1)], True),
        (2**25, [(-3, 2**30), (-3, 2**25), (-1, -1)], True),
        (0, [(-3, 2**30), (-3, 2**25)], False),
    ],
    ids=["today's glibc", "an older glibc", "another library"],
)
def test_nothing_is_set_by_halves(monkeypatch, most, asked, kept):
    """An older glibc refuses thresholds above 32 MB; the other setting alone would make it slower than it was."""
    calls = []

    def mallopt(parameter, value):
        calls.append((parameter, value))
        return int(value <= most)

    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert allocation.keep_freed_memory() is kept
    assert calls == asked


def test_a_library_without_the_setting_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: object())
    assert not allocation.keep_freed_memory()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_experiment_asks_for_it_on_a_cpu_alone(monkeypatch, tmp_path, device):
    asked = []
    monkeypatch.setattr("mmdiffusion.experiment.keep_freed_memory", lambda: asked.append(True))
    monkeypatch.setattr(SingleDeviceStrategy, "root_device", torch.device(device))
    monkeypatch.setattr(sys, "argv", ["mmdiffusion"])
    MMDiffusionCLI(tmp_path / "run", ["-c", str(write_config(tmp_path / "tiny.yaml"))], execute=False)
    assert asked == [True] * (device == "cpu")
