"""MT-Diffusion classifies: from the image alone, at the given times, one sample like another."""

import pytest
import torch

from tests.helpers import build_batch, build_method
from tests.methods.spy import Spy


class Sealed(dict):
    """A batch whose label must not be read."""

    def __getitem__(self, key):
        assert key != "label"
        return super().__getitem__(key)

    def get(self, key, default=None):
        assert key != "label"
        return super().get(key, default)


def test_classify_does_not_read_the_label():
    method, batch = build_method(), build_batch(12)
    probabilities = method.classify(Sealed(batch))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(12))
    assert torch.equal(method.classify(batch | {"label": batch["label"].flip(0)}), probabilities)
    assert torch.equal(method.classify({k: batch[k] for k in ("image", "index")}), probabilities)


def test_classify_aggregates_and_shows_nothing(monkeypatch):
    method, batch = build_method(read_times=(0.1, 0.3)), build_batch(4)
    corrupt, denoise = Spy(monkeypatch, method.diffusion, "corrupt"), Spy(monkeypatch, method.network, "forward")
    method.classify(batch)
    assert [int(call[1][0]) for call in corrupt.calls] == [5, 15]
    assert not any(call[3] for call in corrupt.calls)
    for _, _, told in denoise.calls:
        assert torch.equal(told[0].vector, method.network.tell({}, (), 4)[0].vector)


def test_classify_depends_on_the_index_not_on_the_batch():
    method, batch = build_method(), build_batch(12)
    alone = method.classify({"image": batch["image"][5:6], "index": batch["index"][5:6]})
    torch.testing.assert_close(method.classify(batch)[5:6], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"absent_share": 0.0}, {"weight": 0.0}])
def test_a_head_that_was_not_trained_does_not_classify(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))} of label is 0"):
        build_method(**changes).classify(build_batch(2))
