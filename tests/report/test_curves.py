"""Charts: every finite number in its place, on axes with round names."""

import math
import re

import pytest

from mmdiffusion.report.axes import linear, logarithmic
from mmdiffusion.report.curves import Curve, chart, charts, read_curves


def points(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


def test_columns_are_read_row_by_row(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/loss\n0,4,2.0,\n0,9,1.0,\n0,9,,1.5\n1,14,nan,\n")
    curves = read_curves(tmp_path / "metrics.csv")
    assert curves == {"train/loss": Curve([4, 9], [2.0, 1.0], 1), "val/loss": Curve([9], [1.5])}


def test_training_and_validation_share_a_chart_and_other_numbers_do_not(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,gradient/mse,train/mse,train/loss,val/loss\n1,3,1,1,\n2,3,1,1,2\n")
    found = charts(tmp_path / "metrics.csv")
    assert [(c.name, [line.kind for line in c.lines]) for c in found] == [
        ("loss", ["train", "val"]),
        ("gradient/mse", ["other"]),
        ("mse", ["train"]),
    ]


def test_without_a_file_or_rows_there_is_no_chart(tmp_path):
    assert charts(tmp_path / "metrics.csv") == []
    (tmp_path / "metrics.csv").write_text("step,train/loss\n")
    assert charts(tmp_path / "metrics.csv") == []


def test_a_line_goes_through_its_values():
    drawn = chart("loss", {"train": Curve([0, 50, 100], [0.0, 1.0, 0.5])})
    (line,) = drawn.lines
    expected = [(drawn.across.place(step), drawn.up.place(value)) for step, value in ((0, 0), (50, 1), (100, 0.5))]
    assert points(line.path) == [pytest.approx(point, abs=0.06) for point in expected]
    assert (line.last, line.step) == (0.5, 100)
    names = dict(map(reversed, drawn.up.ticks))
    assert names["0"] > names["1.0"], "up is smaller, in a picture"


def test_the_running_mean_of_a_constant_is_that_constant():
    (line,) = chart("loss", {"train": Curve(list(range(1000)), [2.0] * 1000)}).lines
    heights = {y for _, y in points(line.mean)}
    assert heights == {y for _, y in points(line.path)}
    assert len(points(line.path)) <= 600
    middle = points(line.mean)
    assert middle[0][0] - points(line.path)[0][0] == pytest.approx(points(line.path)[-1][0] - middle[-1][0], abs=1.5)


def test_a_wide_range_of_positive_numbers_is_logarithmic():
    assert chart("loss", {"train": Curve([0, 1], [100.0, 1.0])}).up.is_logarithmic
    assert not chart("loss", {"train": Curve([0, 1], [100.0, -1.0])}).up.is_logarithmic
    assert not chart("loss", {"train": Curve([0, 1], [10.0, 1.0])}).up.is_logarithmic


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 7.9), (1e-6, 3e-6), (5.0, 5.0), (0.0, 0.0), (-1e9, 1e9)])
def test_linear_axes_hold_their_values(low, high):
    axis = linear(low, high, 200, 10)
    assert 10 - 1e-6 <= axis.place(high) <= axis.place(low) <= 200 + 1e-6
    assert 2 <= len(axis.ticks) <= 8
    assert len({name for _, name in axis.ticks}) == len(axis.ticks)
    assert all(10 - 1e-6 <= place <= 200 + 1e-6 for place, _ in axis.ticks)


@pytest.mark.parametrize(("low", "high"), [(0.003, 0.9), (1.0, 21.0), (1e-8, 1e3)])
def test_logarithmic_axes_give_equal_ratios_equal_lengths(low, high):
    axis = logarithmic(low, high, 0, 100)
    middle = math.sqrt(low * high)
    assert [axis.place(value) for value in (low, middle, high)] == pytest.approx([0, 50, 100])
    for place, name in axis.ticks:
        assert axis.place(float(name)) == pytest.approx(place)
    assert 2 <= len(axis.ticks) <= 7


def test_steps_are_whole_and_end_with_the_training():
    axis = linear(0, 3, 0, 300, whole=True)
    assert [name for _, name in axis.ticks] == ["0", "1", "2", "3"]
    assert axis.place(3) == 300
