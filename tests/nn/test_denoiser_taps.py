"""Taps of the denoiser: their names and shapes, and a pass that ends at one uses no later weight."""

import pytest
import torch

from tests.nn.build_denoiser import CONTEXT, ONE, PLANE, QUERY, busy, fresh, inputs

TAPS = {"down.0": (8, 16), "down.1": (4, 24), "mid": (2, 32), "up.1": (4, 24), "up.0": (8, 16)}
STAGES = {  # tap: the weights it is the first to use; those before it in `FIRST` are used by all
    "down.0": ["stream.blocks.0", "down.0"],
    "down.1": ["merge.0", "stream.blocks.1", "down.1"],
    "mid": ["merge.1", "stream.blocks.2", "stream.blocks.3", "middle"],
    "up.1": ["split.1", "skip.1", "up.1"],
    "up.0": ["split.0", "skip.0", "up.0"],
}
FIRST = ["times", "vector", "embed", "position", "stream.time"]


def spoil_after(net, tap):
    """NaN in every weight that no tap up to this one uses."""
    used = [*FIRST, *(part for parts in list(STAGES.values())[: list(STAGES).index(tap) + 1] for part in parts)]
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if not any(name == part or name.startswith(f"{part}.") for part in used):
                weight.fill_(torch.nan)


@pytest.mark.parametrize("until", STAGES)
def test_until_uses_no_later_weight(until):
    net = busy(context_width=CONTEXT, query_width=QUERY, positions="learned")
    given = inputs(net, query=True)
    full = net(**given)
    spoil_after(net, until)
    early = net(**given, until=until)
    assert early.prediction is None
    assert early.taps[until].isfinite().all()
    assert torch.equal(early.taps[until], full.taps[until])


def test_a_later_weight_spoils_the_full_pass():
    net = busy()
    spoil_after(net, "up.0")
    assert net(**inputs(net)).prediction.isnan().all()


def test_until_mid_returns_the_query_of_the_full_pass():
    net = busy(query_width=QUERY)
    given = inputs(net, query=True)
    full = net(**given).query
    spoil_after(net, "mid")
    assert torch.equal(net(**given, until="mid").query, full)


@pytest.mark.parametrize("until", STAGES)
def test_until_computes_the_taps_up_to_its_own(until):
    net = fresh()
    assert list(net(**inputs(net), until=until).taps) == list(STAGES)[: list(STAGES).index(until) + 1]


def test_taps_have_their_names_widths_and_shapes():
    net = busy()
    assert net.tap_names == list(TAPS)
    assert net.tap_widths == {name: width for name, (_, width) in TAPS.items()}
    shapes = {name: tuple(tap.shape) for name, tap in net(**inputs(net)).taps.items()}
    assert shapes == {name: (2, size, size, width) for name, (size, width) in TAPS.items()}


def test_one_level_has_one_tap():
    assert fresh(PLANE, ONE).tap_widths == {"mid": 16}


@pytest.mark.parametrize("until", ["down.2", "up.2", "middle", ""])
def test_unknown_tap_is_refused(until):
    net = fresh()
    with pytest.raises(ValueError, match=rf"until is '{until}': expected one of down\.0, down\.1, mid, up\.1, up\.0"):
        net(**inputs(net), until=until)
