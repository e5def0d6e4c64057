"""The denoiser against an hourglass of plain products, and the contract of its times, queries, taps and errors."""

import math

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from mmdiffusion.nn.denoiser import Denoiser, Level, check_levels, merge_tokens, split_tokens
from mmdiffusion.nn.text_stream import QueryBlock
from mmdiffusion.types import Condition

ONE = [Level(16, 2, 2)]
THREE = [Level(16, 1, 2), Level(24, 1, 3), Level(32, 2, 2)]
LINE, PLANE = (16,), (8, 8)
NETS = [
    pytest.param(grid, levels, id=f"{len(grid)}d_{len(levels)}_levels")
    for grid in (LINE, PLANE)
    for levels in (ONE, THREE)
]
CHANNELS, OUT_CHANNELS, VECTOR, CONTEXT, QUERY = 3, 5, 7, 6, 10


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fresh(
    grid=PLANE,
    levels=THREE,
    vector_width: int | None = VECTOR,
    context_width: int | None = None,
    query_width: int | None = None,
    **options,
):
    torch.manual_seed(0)
    widths = (vector_width, context_width, query_width)
    return Denoiser(grid, CHANNELS, OUT_CHANNELS, *widths, levels, embedding_width=12, **options)


def busy(*args, **options):
    """A network none of whose weights is zero."""
    net = fresh(*args, **options)
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.add_(0.2 * normal(i, *parameter.shape))
    return net


def inputs(net, *, query=False, batch=2):
    """What a network is called with, by argument."""
    condition = Condition(
        vector=None if net.vector is None else normal(101, batch, VECTOR),
        tokens=normal(102, batch, 4, CONTEXT) if net.has_context else None,
    )
    time = torch.linspace(0.1, 0.9, batch * (net.num_times + query)).reshape(batch, -1)
    given = {"tokens": normal(103, batch, *net.grid, CHANNELS), "time": time, "condition": condition}
    return given | ({"query": normal(104, batch, 3, QUERY)} if query else {})


# The same network in plain products ----------------------------------------------------------------------------


def affine(layer, x):
    return x @ layer.weight.T + layer.bias


def norm(x, weight=1.0, bias=0.0):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def by_head(x, num_heads):
    return x.reshape(*x.shape[:2], num_heads, -1).permute(0, 2, 1, 3)


def softmax_attention(queries, keys, values):
    weights = (torch.einsum("bhid,bhjd->bhij", queries, keys) / math.sqrt(queries.shape[-1])).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.einsum("bhij,bhjd->bihd", weights, values).flatten(2)


def turn(x, grid):
    """Rotary positions as complex numbers: channel i is the real part, channel i + d/2 the imaginary one."""
    half = x.shape[-1] // 2
    pairs = half // len(grid)
    positions = torch.cartesian_prod(*map(torch.arange, grid)).reshape(-1, len(grid))
    angles = (positions[:, :, None] * (math.pi / 2 * 100 ** (-torch.arange(pairs) / pairs))).flatten(1)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


def block_by_hand(block, x, vector, grid, context):
    shift, scale, gate, ff_shift, ff_scale, ff_gate = affine(block.modulation, vector)[:, None].chunk(6, dim=-1)
    attention, cross = block.attention, block.cross
    parts = affine(attention.project, norm(x) * (1 + scale) + shift).chunk(3, dim=-1)
    queries, keys, values = (by_head(part, attention.num_heads) for part in parts)
    queries, keys = norm(queries, attention.scale), norm(keys, attention.scale)
    if grid is not None:
        queries, keys = turn(queries, grid), turn(keys, grid)
    x = x + gate * affine(attention.out, softmax_attention(queries, keys, values))
    if cross is not None:
        queries = affine(cross.project, norm(x, block.cross_norm.weight, block.cross_norm.bias))
        keys, values = affine(cross.project_context, context).chunk(2, dim=-1)
        queries, keys = (norm(by_head(part, cross.num_heads), cross.scale) for part in (queries, keys))
        x = x + affine(cross.out, softmax_attention(queries, keys, by_head(values, cross.num_heads)))
    hidden = affine(block.feed_forward[0], norm(x) * (1 + ff_scale) + ff_shift)
    return x + ff_gate * affine(block.feed_forward[2], hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)


def corners(num_axes):
    halves = [slice(0, None, 2), slice(1, None, 2)]
    return (
        [(slice(None), i) for i in halves] if num_axes == 1 else [(slice(None), i, j) for i in halves for j in halves]
    )


def run_by_hand(net, blocks, level, x, vector, context):
    flat = x.reshape(len(x), -1, x.shape[-1])
    for block in blocks:
        flat = block_by_hand(block, flat, vector, x.shape[1:-1] if net.rotary else None, context)
    return flat.reshape(x.shape)


def level_by_hand(net, i, x, vector, context):
    if i == len(net.levels) - 1:
        return run_by_hand(net, net.middle, i, x, vector, context)
    skip = run_by_hand(net, net.down[i], i, x, vector, context)
    places = corners(len(net.grid))
    merged = affine(net.merge[i], torch.cat([skip[place] for place in places], dim=-1))
    coarse = affine(net.split[i], level_by_hand(net, i + 1, merged, vector, context))
    back = torch.empty_like(skip)
    for place, part in zip(places, coarse.chunk(len(places), dim=-1), strict=True):
        back[place] = part
    mixed = (1 - net.skip[i]) * skip + net.skip[i] * back
    return run_by_hand(net, net.up[i], i, mixed, vector, context)


@torch.no_grad()
def denoiser_by_hand(net, tokens, time, condition):
    vector = net.times[0](time[:, 0]) + affine(net.vector, condition.vector)
    vector = vector * torch.sigmoid(vector)
    x = affine(net.embed, tokens)
    x = x if net.position is None else x + net.position
    x = level_by_hand(net, 0, x, vector, condition.tokens)
    shift, scale = affine(net.out_modulation, vector).reshape(len(x), *[1] * len(net.grid), -1).chunk(2, dim=-1)
    return affine(net.out, norm(x) * (1 + scale) + shift)


@pytest.mark.parametrize("context_width", [None, CONTEXT], ids=["no_context", "context"])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize(("grid", "levels"), NETS)
def test_prediction_is_that_of_plain_products(grid, levels, positions, context_width):
    net = busy(grid, levels, positions=positions, context_width=context_width)
    given = inputs(net)
    torch.testing.assert_close(net(**given).prediction, denoiser_by_hand(net, **given), atol=1e-5, rtol=1e-5)


def test_one_axis_and_two_agree_where_positions_are_learned():
    line, plane = busy((16,), ONE, positions="learned"), fresh((4, 4), ONE, positions="learned")
    weights = line.state_dict()
    plane.load_state_dict(weights | {"position": weights["position"].reshape(1, 4, 4, -1)})
    given = inputs(line)
    folded = plane(**given | {"tokens": given["tokens"].reshape(2, 4, 4, -1)})
    torch.testing.assert_close(folded.prediction.flatten(1, 2), line(**given).prediction, atol=1e-6, rtol=1e-5)


# The fresh network and its gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize(("grid", "levels"), NETS)
def test_fresh_network_predicts_zero_from_finite_taps(grid, levels):
    net = fresh(grid, levels, context_width=CONTEXT)
    denoised = net(**inputs(net))
    assert torch.equal(denoised.prediction, torch.zeros(2, *grid, OUT_CHANNELS))
    assert all(tap.isfinite().all() for tap in denoised.taps.values())


def without_gradient(net):
    return {name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()}


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize(("grid", "levels"), NETS)
def test_gradients_reach_every_parameter(grid, levels, positions):
    net = busy(grid, levels, positions=positions, context_width=CONTEXT, query_width=QUERY, num_times=2)
    denoised = net(**inputs(net, query=True))
    (denoised.prediction.square().sum() + denoised.query.square().sum()).backward()
    assert without_gradient(net) == set()


def test_without_a_query_only_the_weights_of_the_query_get_no_gradient():
    net = busy(context_width=CONTEXT, query_width=QUERY, positions="learned")
    net(**inputs(net)).prediction.square().sum().backward()
    assert without_gradient(net) == {name for name, _ in net.named_parameters() if name.startswith("stream.")}


# Taps and early stops ------------------------------------------------------------------------------------------

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


# Tokens between levels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [LINE, PLANE, (4, 6)])
def test_split_inverts_merge(grid):
    x = normal(0, 2, *grid, 5)
    merged = merge_tokens(x)
    assert tuple(merged.shape[1:-1]) == tuple(size // 2 for size in grid)
    assert torch.equal(split_tokens(merged, len(grid)), x)


def test_merge_puts_neighbours_side_by_side():
    x = torch.arange(16).reshape(1, 4, 4, 1).float()
    assert merge_tokens(x)[0, 0, 1].tolist() == [2, 3, 6, 7]


# Times ---------------------------------------------------------------------------------------------------------


def test_one_time_may_come_without_its_axis():
    net = busy()
    given = inputs(net)
    flat = net(**given | {"time": given["time"][:, 0]})
    assert torch.equal(flat.prediction, net(**given).prediction)


@pytest.mark.parametrize("column", [0, 1])
def test_prediction_follows_the_time_of_each_modality(column):
    net = busy(num_times=2)
    given = inputs(net)
    moved = given["time"].clone()
    moved[:, column] += 0.05
    assert (net(**given | {"time": moved}).prediction - net(**given).prediction).abs().max() > 1e-3


def test_modalities_have_time_embeddings_of_their_own():
    net = busy(num_times=2)
    given = inputs(net)
    assert not torch.allclose(net(**given | {"time": given["time"].flip(1)}).prediction, net(**given).prediction)


@pytest.mark.parametrize("columns", [0, 1, 3])
def test_wrong_number_of_times_is_refused(columns):
    net = fresh(num_times=2)
    with pytest.raises(ValueError, match=f"time has {columns} columns: expected num_times = 2"):
        net(**inputs(net) | {"time": torch.zeros(2, columns)})


def test_query_without_a_time_of_its_own_is_refused():
    net = fresh(query_width=QUERY)
    with pytest.raises(ValueError, match="time has 1 columns: expected num_times = 1, one more with a query"):
        net(**inputs(net, query=True) | {"time": torch.zeros(2)})


# Query ---------------------------------------------------------------------------------------------------------


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


def test_query_is_refused_by_a_network_without_query_width():
    net = fresh()
    given = inputs(net) | {"time": torch.zeros(2, 2), "query": normal(0, 2, 3, QUERY)}
    with pytest.raises(ValueError, match="query is given, but query_width is None"):
        net(**given)


# Condition -----------------------------------------------------------------------------------------------------


def test_prediction_follows_the_vector():
    net = busy()
    given = inputs(net)
    moved = given | {"condition": Condition(normal(9, 2, VECTOR))}
    assert not torch.allclose(net(**moved).prediction, net(**given).prediction)


def test_masked_context_tokens_have_no_influence():
    net = busy(context_width=CONTEXT)
    given = inputs(net)
    vector, tokens, _ = given["condition"]
    mask = torch.tensor([[True, True, False, False], [True, False, True, False]])
    other = torch.where(mask[..., None], tokens, 100.0)
    first, second = (net(**given | {"condition": Condition(vector, x, mask)}).prediction for x in (tokens, other))
    assert torch.equal(first, second)


def test_masked_context_tokens_are_as_good_as_missing():
    net = busy(context_width=CONTEXT)
    given = inputs(net)
    vector, tokens, _ = given["condition"]
    masked = Condition(vector, tokens, torch.tensor([[True, True, True, False]] * 2))
    torch.testing.assert_close(
        net(**given | {"condition": masked}).prediction,
        net(**given | {"condition": Condition(vector, tokens[:, :3])}).prediction,
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("options", "condition", "message"),
    [
        ({}, Condition(), r"condition\.vector is missing"),
        ({"vector_width": None}, Condition(normal(0, 2, VECTOR)), r"condition\.vector is given"),
        ({"context_width": CONTEXT}, Condition(normal(0, 2, VECTOR)), r"condition\.tokens is missing"),
        ({}, Condition(normal(0, 2, VECTOR), normal(1, 2, 4, CONTEXT)), r"condition\.tokens is given"),
    ],
)
def test_condition_that_does_not_fit_is_refused(options, condition, message):
    net = fresh(**options)
    with pytest.raises(ValueError, match=message):
        net(**inputs(net) | {"condition": condition})


# Grid and levels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(8, 4), (64,), (4, 8)])
def test_other_grid_is_refused(grid):
    net = fresh()
    with pytest.raises(ValueError, match=rf"tokens has grid \({grid[0]},.*\): expected \(8, 8\)"):
        net(**inputs(net) | {"tokens": torch.zeros(2, *grid, CHANNELS)})


@pytest.mark.parametrize(
    ("grid", "levels", "message"),
    [
        ((6, 8), THREE, r"grid is \(6, 8\), levels has 3: .* multiples of 4"),
        ((8, 6), THREE, r"grid is \(8, 6\), levels has 3: .* multiples of 4"),
        ((7,), THREE[:2], r"grid is \(7,\), levels has 2: .* multiples of 2"),
        ((0,), ONE, r"grid is \(0,\)"),
        ((4, 4, 4), ONE, r"grid is \(4, 4, 4\): expected one or two axes"),
        ((), ONE, r"grid is \(\): expected one or two axes"),
        (PLANE, [], "levels is empty"),
        (PLANE, [*ONE, Level(10, 1, 4)], r"levels\[1\] is Level\(width=10, depth=1, heads=4\)"),
        (PLANE, [Level(16, 0, 2)], r"levels\[0\] is .*depth=0.* expected positive numbers"),
    ],
)
def test_levels_that_cannot_be_built_are_refused(grid, levels, message):
    with pytest.raises(ValueError, match=message):
        check_levels(grid, levels)


def test_constructor_checks_the_levels():
    with pytest.raises(ValueError, match="levels is empty"):
        fresh(PLANE, [])


# Cost and compilation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"vector_width": None, "num_times": 2}], ids=["vector", "two_times"])
@pytest.mark.parametrize(("grid", "levels"), NETS)
def test_flops_are_those_pytorch_counts(grid, levels, options):
    net = fresh(grid, levels, **options)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(**inputs(net, batch=1))
    assert net.flops() == pytest.approx(counter.get_total_flops(), rel=1e-9)


def test_compiling_in_place_keeps_the_names_of_the_weights():
    net = fresh()
    names = list(net.state_dict())
    net.compile()
    assert list(net.state_dict()) == names


# Gradient checkpointing ----------------------------------------------------------------------------------------


def gradients(net, **given):
    """Gradients of all weights, and the bytes that the way back was given, those of the weights left out."""
    kept = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}

    def keep(x):
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        denoised = net(**given)
    loss = denoised.prediction.square().sum()
    loss = loss if denoised.query is None else loss + denoised.query.square().sum()
    num_bytes = sum(kept.values())
    return dict(zip(dict(net.named_parameters()), torch.autograd.grad(loss, net.parameters()), strict=True)), num_bytes


@pytest.mark.parametrize(
    "options",
    [{}, {"context_width": CONTEXT}, {"query_width": QUERY}, {"query_width": QUERY, "query_direction": "one_way"}],
    ids=["plain", "context", "two_way", "one_way"],
)
def test_gradients_of_blocks_that_run_twice_are_the_same_to_the_bit(options):
    plain, twice = busy(**options), busy(**options, gradient_checkpointing=True)
    given = inputs(plain, query=plain.stream is not None)
    expected, made = gradients(plain, **given)[0], gradients(twice, **given)[0]
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(made[name], gradient), name


def test_blocks_that_run_twice_keep_their_inputs_alone():
    levels = [Level(16, 1, 2), Level(24, 6, 3)]
    plain, twice = busy(PLANE, levels), busy(PLANE, levels, gradient_checkpointing=True)
    given = inputs(plain, batch=8)
    tokens = 8 * 8 * 8
    of_inputs = 4 * (2 * tokens * 16 + 6 * tokens // 4 * 24)  # these the checkpoint keeps itself
    assert gradients(twice, **given)[1] + of_inputs < 0.3 * gradients(plain, **given)[1]


def test_what_is_not_trained_runs_once():
    net = busy(gradient_checkpointing=True)
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        net(**inputs(net, batch=1))
    with FlopCounterMode(display=False) as counter:
        net(**inputs(net, batch=1)).prediction.sum().backward()
    assert once.get_total_flops() == net.flops()
    assert 3.8 * net.flops() < counter.get_total_flops() < 4.3 * net.flops()
