"""A training that is asked to stop before PyTorch is there ends with the status of one that can go on."""

import os
import signal
import subprocess
import sys

import pytest

from mmdiffusion.signals import EXIT_STATUS
from tests.helpers import ROOT

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
@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_signal_while_it_starts(command, number):
    words = [sys.executable, "-c", PROGRAM, command, str(int(number))]
    done = subprocess.run(
        words, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    if command == "fit":
        assert done.returncode == EXIT_STATUS, done.stderr
        assert done.stderr == f"mmdiffusion: {number.name}: stopped, with no step at hand; the same command goes on\n"
    else:
        assert done.returncode == -number, "a test has no place to go on from"
