"""The last checkpoint is that of the last step."""

import pytest
import torch

from mmdiffusion.callbacks import LastCheckpoint
from tests.helpers import Oracle, Pictures, build_trainer


@pytest.mark.parametrize(("every", "steps"), [(2, 5), (100, 3), (2, 4)])
def test_it_holds_the_last_step(tmp_path, every, steps):
    saver = LastCheckpoint(every)
    trainer = build_trainer(tmp_path, saver, enable_checkpointing=True, max_steps=steps, limit_val_batches=0)
    trainer.fit(Oracle(), datamodule=Pictures())
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert path.name == "last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == steps


def test_it_is_written_on_the_way(tmp_path):
    """A run that is killed leaves the last multiple of the interval."""

    class Killed(Oracle):
        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 5:
                raise KeyboardInterrupt

    saver = LastCheckpoint(2)
    trainer = build_trainer(tmp_path, saver, enable_checkpointing=True, max_steps=9, limit_val_batches=0)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(Killed(), datamodule=Pictures())
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
