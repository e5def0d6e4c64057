"""Two processes under Lightning count into one codebook, though it is built before they know of each other."""

import os
import subprocess
import sys

import pytest
import torch

from tests.helpers import CONFIG, ROOT, write_config

CODES, DECAY, BATCH, STEPS = 16, 0.75, 8, 2
NETWORK = {
    "num_codes": CODES,
    "code_width": 4,
    "strides": [2],
    "width": 8,
    "depth": 1,
    "codebook_decay": DECAY,
    "revive_below": 0.0,
}
MODEL = {
    "class_path": "VQAutoencoder",
    "init_args": {"network": {"class_path": "QuantisedAutoencoder", "init_args": NETWORK}},
}
CALLBACKS = [{"class_path": "EMA"}, {"class_path": "LastCheckpoint"}]


def test_uses_of_both_processes_are_counted(tmp_path):
    trainer = CONFIG["trainer"] | {"callbacks": CALLBACKS, "max_steps": STEPS, "limit_val_batches": 0}
    trainer |= {"devices": 2, "strategy": "ddp"}
    data = {"class_path": "Digits", "init_args": {"batch_size": BATCH}}
    write_config(tmp_path / "config.yaml", CONFIG | {"trainer": trainer, "model": MODEL, "data": data})
    (tmp_path / "program.py").write_text("from mmdiffusion.cli import main\n\nmain()\n")
    done = subprocess.run(
        [sys.executable, "program.py", "fit", "-c", "config.yaml", "--run", "run"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    kept, seen = DECAY**STEPS, 2 * BATCH * 16
    total = state["network.quantiser.lookup._codebook.cluster_size"].sum().item()
    assert total == pytest.approx(kept * CODES + (1 - kept) * seen, rel=1e-5)
