"""Bars count what they say, and leave nothing open."""

import pytest

from mmdiffusion.callbacks import Draw, StepProgress
from mmdiffusion.callbacks.draws import Conditions, draw_samples
from tests.helpers import Oracle, Pictures, build_trainer


class Watched(StepProgress):
    """Keeps each display when it is opened."""

    def __init__(self):
        super().__init__()
        self.displays = []

    def _new(self):
        self.displays.append(super()._new())
        return self.displays[-1]

    @property
    def counts(self):
        return {task.description: (task.completed, task.total) for shown in self.displays for task in shown.tasks}


def trained(folder, *callbacks, **settings):
    bar = Watched()
    build_trainer(folder, bar, *callbacks, enable_progress_bar=True, **settings).fit(Oracle(), datamodule=Pictures())
    return bar


def test_training_counts_steps_over_epochs(tmp_path):
    bar = trained(tmp_path, max_steps=5, limit_val_batches=0)
    assert list(bar.counts.values()) == [(5, 5)]
    assert len(bar.displays) == 1


def test_drawing_is_counted_in_samples_within_the_open_display(tmp_path):
    bar = Watched()
    trainer = build_trainer(tmp_path, bar, enable_progress_bar=True)
    for _ in draw_samples(
        trainer, Oracle(), Draw([]), Conditions(Pictures(), [], "test"), range(10), 4, "drawing joint"
    ):
        pass
    assert bar.counts == {"drawing joint": (10, 10)}
    with bar.counting("outer", 1):
        pass
    assert all(shown.finished for shown in bar.displays[:1])


def test_a_failure_closes_the_display(tmp_path):
    class Failing(Oracle):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("stop")

    bar = Watched()
    trainer = build_trainer(tmp_path, bar, enable_progress_bar=True, max_steps=3)
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(Failing(), datamodule=Pictures())
    assert not any(shown.live.is_started for shown in bar.displays)
