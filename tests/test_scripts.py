"""`scripts/slurm.sh` with stand-ins for SLURM's commands: what it starts, and when it asks for another turn."""

import os
import subprocess
import sys

import pytest
import torch

from tests.helpers import CONFIG, ROOT, write_config

SCONTROL = 'echo "$@" >> "$(dirname "$0")/asked"'
EARLY = """
import os
import signal
from pathlib import Path

from lightning import Callback


class Early(Callback):
    \"\"\"Asks this process to stop while it starts, the first time.\"\"\"

    def setup(self, trainer, pl_module, stage):
        if not Path("asked").exists():
            os.kill(os.getpid(), signal.SIGTERM)
"""


def submitted(folder, srun, *words):
    """The job, run here: how it ended, and what `scontrol` was asked for."""
    for name, line in (("srun", srun), ("scontrol", SCONTROL)):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    place = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{folder}", "OMP_NUM_THREADS": "1"}
    job = {"SLURM_CPUS_PER_TASK": "3", "SLURM_JOB_ID": "7"}
    script = [ROOT / "scripts" / "slurm.sh", *words]
    done = subprocess.run(
        ["bash", *script], cwd=folder, env=os.environ | place | job, capture_output=True, text=True, check=False
    )
    asked = folder / "asked"
    return done, asked.read_text() if asked.exists() else ""


def test_the_training_is_started_with_the_job_s_cores_and_arguments(tmp_path):
    done, _ = submitted(tmp_path, 'printf "%s|" "$@"', "-c", "a file.yaml", "--run", "runs/a")
    assert done.stdout == "--cpus-per-task|3|mmdiffusion|fit|-c|a file.yaml|--run|runs/a|"


@pytest.mark.parametrize(("status", "asked"), [(75, "requeue 7\n"), (0, ""), (1, ""), (2, ""), (143, "")])
def test_a_job_that_can_go_on_is_queued_again_and_no_other(tmp_path, status, asked):
    done, found = submitted(tmp_path, f"exit {status}")
    assert found == asked
    assert done.returncode == status


def test_a_training_that_is_stopped_while_it_starts_has_another_turn(tmp_path):
    callbacks = [{"class_path": "early.Early"}, {"class_path": "LastCheckpoint"}]
    write_config(tmp_path / "tiny.yaml", CONFIG | {"trainer": CONFIG["trainer"] | {"callbacks": callbacks}})
    (tmp_path / "early.py").write_text(EARLY)
    srun = f'shift 3; exec {sys.executable} -m mmdiffusion "$@"'
    words = ("-c", "tiny.yaml", "--run", "run")
    done, asked = submitted(tmp_path, srun, *words)
    assert (done.returncode, asked) == (75, "requeue 7\n"), done.stderr
    assert "mmdiffusion: SIGTERM: stopped, with no step at hand; the same command goes on" in done.stderr
    done, asked = submitted(tmp_path, srun, *words)
    assert (done.returncode, asked) == (0, "requeue 7\n"), done.stderr
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
