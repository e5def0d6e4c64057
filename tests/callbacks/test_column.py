"""A column of figures: states of its own, computed also where a process has no samples."""

from functools import partial

import pytest
import torch

from mmdiffusion.callbacks.column import Column
from mmdiffusion.metrics import RetrievalRecall
from tests.callbacks.measuring import JUDGED, build_metrics
from tests.helpers import picture


@pytest.mark.parametrize("num_samples", [0, 10])
def test_a_process_without_samples_computes_what_the_others_compute(monkeypatch, num_samples):
    """To compute is to meet the other processes: one that stays away leaves them waiting."""
    computed, metrics = [], build_metrics()

    def note(name):
        computed.append(name)
        return 0.0

    label = torch.arange(num_samples)
    for metric in metrics[:2]:
        column = Column("joint", [metric], {"image", "label"}, 40, {})
        for chosen in column.metrics:
            monkeypatch.setattr(chosen, "compute", partial(note, metric.name()))
        if num_samples:
            column.update({"image": picture(label), "label": label})
        column.write({})
    assert computed == [JUDGED]


def test_columns_have_states_of_their_own():
    metric = RetrievalRecall()
    first, second = (Column(name, [metric], metric.inputs, 40, {}) for name in ("first", "second"))
    embedding = torch.eye(3)
    for column, other in ((first, embedding), (second, embedding.roll(1, 0))):
        batch = {"image_embedding": embedding, "text_embedding": other, "caption": ["a", "b", "c"]}
        column.update({name: batch.get(name, torch.arange(3)) for name in metric.inputs})
    figures = {}
    first.write(figures)
    second.write(figures)
    assert {name: figure["value"] for name, figure in figures[metric.name()].items()} == {"first": 1, "second": 0}
