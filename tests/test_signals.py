"""How a process ends that was asked to stop: while it starts, before PyTorch is there, and as one of several."""

import os
import signal
import subprocess
import sys

import pytest
from lightning.pytorch.utilities import rank_zero_only

from mmdiffusion import cli
from mmdiffusion.signals import EXIT_STATUS, Stopped
from tests.helpers import ROOT, command

PROGRAM = """
import os, sys, types

stand_in = types.ModuleType("mmdiffusion.cli")
stand_in.main = lambda: os.kill(os.getpid(), int(sys.argv[2]))
sys.modules["mmdiffusion.cli"] = stand_in
from mmdiffusion.__main__ import main

main()
assert not {"torch", "lightning"} & set(sys.modules)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
@pytest.mark.parametrize("name", ["fit", "test"])
def test_a_signal_while_it_starts(name, number):
    words = [sys.executable, "-c", PROGRAM, name, str(int(number))]
    done = subprocess.run(
        words, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    if name == "fit":
        assert done.returncode == EXIT_STATUS, done.stderr
        assert done.stderr == f"mmdiffusion: {number.name}: stopped, with no step at hand; the same command goes on\n"
    else:
        assert done.returncode == -number, "a test has no place to go on from"


@pytest.mark.parametrize(
    ("rank", "status", "said"), [(0, EXIT_STATUS, "mmdiffusion: stopped after step 3\n"), (1, 0, "")]
)
def test_one_process_of_several_says_that_it_has_stopped(monkeypatch, rank, status, said):
    """For a launcher a second one that does not end with 0 would be a crash, at which it kills the first."""

    def stopped(args):
        raise Stopped("stopped after step 3")

    monkeypatch.setattr(cli, "execute", stopped)
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    assert command("fit", "--run", "runs/a") == (status, "", said)
