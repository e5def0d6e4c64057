"""The printed table: every name and figure is whole and in its place, whatever the width of the terminal."""

import pytest

from mmdiffusion.callbacks.table import print_table

METRICS = ("judged_accuracy[digits-svm]", "label_accuracy")
DRAWS = ["nothing", "masked", "feature", "label", "label, masked", "label, masked, feature"]
DRAWS += [f"image, {name}" for name in DRAWS[1:]] + ["image", "real", "real[train]", "shuffled"]


def figures(columns, metrics=METRICS):
    """A different figure for each metric and column; the second metric has none of real data."""
    return {
        metric: {
            column: {"value": (1 + row) / 20 + place / 1000}
            for place, column in enumerate(columns)
            if row % 2 == 0 or not column.startswith("real")
        }
        for row, metric in enumerate(metrics)
    }


def texts(columns, metrics=METRICS):
    """The figures as they should be printed, by metric and column."""
    rows = figures(columns, metrics)
    return {
        metric: {column: f"{row[column]['value']:.4g}" if column in row else "" for column in columns}
        for metric, row in rows.items()
    }


def turned(rows):
    """The same by column and metric."""
    return {column: {metric: row[column] for metric, row in rows.items()} for column in next(iter(rows.values()))}


@pytest.fixture
def printed(monkeypatch, capsys):
    """Lines that are printed in a terminal of some width, without trailing spaces."""

    def show(width, columns, metrics=METRICS):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(figures(columns, metrics), columns, "runs/[a], test split: 500 samples of each kind")
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return show


def cells(lines, header):
    """What is printed, by the names on the left and those of the header: a cell begins where its header does."""
    rule = next(place for place, line in enumerate(lines) if set(line) == {" ", "\N{BOX DRAWINGS LIGHT HORIZONTAL}"})
    starts = [f"{lines[rule - 1]}  ".index(f" {name}  ") + 1 for name in header]
    parts = [slice(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return {
        line[: starts[0]].strip(): {name: line[part].strip() for name, part in zip(header, parts, strict=True)}
        for line in lines[rule + 1 :]
        if line
    }


@pytest.mark.parametrize("columns", [DRAWS[:1], [*DRAWS[:2], "real"], DRAWS], ids=len)
def test_a_table_that_fits_has_a_line_for_each_metric(printed, columns):
    assert cells(printed(100 if len(columns) < 4 else 300, columns), columns) == texts(columns)


@pytest.mark.parametrize("width", [80, 100])
def test_many_draws_stand_one_below_the_other(printed, width):
    lines = printed(width, DRAWS)
    assert max(map(len, lines)) <= width
    assert cells(lines, METRICS) == turned(texts(DRAWS))
    assert list(cells(lines, METRICS)) == DRAWS


def test_where_neither_fits_the_narrower_one_is_whole(printed):
    metrics = tuple(f"{metric}@{number}" for number in range(6) for metric in METRICS)
    lines = printed(40, DRAWS[:3], metrics)
    assert max(map(len, lines)) > 40
    assert cells(lines, DRAWS[:3]) == texts(DRAWS[:3], metrics)
    lines = printed(40, DRAWS)
    assert max(map(len, lines)) > 40
    assert cells(lines, METRICS) == turned(texts(DRAWS))


def test_names_with_brackets_are_whole(printed):
    assert any("runs/[a], test split" in line for line in printed(100, DRAWS))
    assert any(" real[train] " in line for line in printed(300, DRAWS))
