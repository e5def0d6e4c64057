"""The query of the denoiser: it meets the image in attention, and nowhere else."""

import pytest
import torch

from mmdiffusion.nn.text_stream import QueryBlock
from mmdiffusion.types import Condition
from tests.nn.build_denoiser import NETS, QUERY, THREE, VECTOR, busy, fresh, inputs, normal


@pytest.mark.parametrize(("grid", "levels"), NETS)
def test_query_comes_back_in_its_shape(grid, levels):
    net = busy(grid, levels, query_width=QUERY)
    assert net(**inputs(net, query=True)).query.shape == (2, 3, QUERY)


def test_no_query_comes_back_where_none_was_given():
    net = busy(query_width=QUERY)
    assert net(**inputs(net)).query is None


def test_query_passes_each_block_of_the_way_down_and_the_middle_once():
    net, passed = fresh(query_width=QUERY), []
    for name, block in net.named_modules():
        if isinstance(block, QueryBlock):
            block.enter.register_forward_pre_hook(lambda *_, name=name: passed.append(name))
    net(**inputs(net, query=True))
    assert passed == [f"stream.blocks.{i}" for i in range(4)]
    assert sum(level.depth for level in THREE) == 4


def close_attention(net):
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if ".attention.out." in name:
                weight.zero_()
    return net


def with_query_changed(given, *, query=0.0, time=0.0):
    columns = given["time"].clone()
    columns[:, -1] += time
    return given | {"query": given["query"] + query, "time": columns}


CHANGES = pytest.mark.parametrize("change", [{"query": 1.0}, {"time": 0.05}], ids=["query", "time"])


@CHANGES
def test_query_and_its_time_reach_the_prediction_through_attention(change):
    net = busy(query_width=QUERY)
    given = inputs(net, query=True)
    assert not torch.allclose(net(**with_query_changed(given, **change)).prediction, net(**given).prediction)


@CHANGES
def test_query_and_its_time_reach_the_prediction_in_no_other_way(change):
    net = close_attention(busy(query_width=QUERY))
    given = inputs(net, query=True)
    assert torch.equal(net(**with_query_changed(given, **change)).prediction, net(**given).prediction)


def test_image_its_time_and_its_vector_reach_the_query_through_attention_only():
    net = close_attention(busy(query_width=QUERY))
    given = inputs(net, query=True)
    time = given["time"] + torch.tensor([0.05, 0.0])
    moved = given | {"tokens": given["tokens"] + 1, "time": time, "condition": Condition(normal(9, 2, VECTOR))}
    assert torch.equal(net(**moved).query, net(**given).query)


def test_query_follows_its_own_time():
    net = close_attention(busy(query_width=QUERY))
    given = inputs(net, query=True)
    assert not torch.allclose(net(**with_query_changed(given, time=0.05)).query, net(**given).query)


def test_query_tokens_have_no_order():
    net = busy(query_width=QUERY)
    given = inputs(net, query=True)
    turned = net(**given | {"query": given["query"].flip(1)})
    torch.testing.assert_close(turned.query.flip(1), net(**given).query, atol=1e-5, rtol=1e-4)


# Mistakes ------------------------------------------------------------------------------------------------------


def test_query_is_refused_by_a_network_without_query_width():
    net = fresh()
    given = inputs(net) | {"time": torch.zeros(2, 2), "query": normal(0, 2, 3, QUERY)}
    with pytest.raises(ValueError, match="query is given, but query_width is None"):
        net(**given)


def test_query_without_a_time_of_its_own_is_refused():
    net = fresh(query_width=QUERY)
    with pytest.raises(ValueError, match="time has 1 columns: expected num_times = 1, one more with a query"):
        net(**inputs(net, query=True) | {"time": torch.zeros(2)})
