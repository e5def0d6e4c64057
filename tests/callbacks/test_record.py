"""The curve goes on where a training does."""

import csv

from mmdiffusion.callbacks.record import RunLogger


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), row.get("train/loss"), row.get("val/loss")) for row in csv.DictReader(file)]


def test_the_curve_goes_on(tmp_path):
    logger = RunLogger(tmp_path, 0)
    for step in range(4):
        logger.log_metrics({"train/loss": float(step)}, step)
    logger.log_metrics({"val/loss": 9.0}, 1)
    logger.log_metrics({"val/loss": 8.0}, 2)
    logger.save()
    again = RunLogger(tmp_path, 3)  # three steps were taken; a validation after the third is made again
    again.log_metrics({"train/loss": 30.0, "train/more": 1.0}, 3)
    again.save()
    assert rows(tmp_path) == [(0, "0.0", ""), (1, "1.0", ""), (2, "2.0", ""), (1, "", "9.0"), (3, "30.0", "")]
    assert not list(tmp_path.glob("*.part"))


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    logger = RunLogger(tmp_path, 0)
    for step in range(3):
        logger.log_metrics({"train/loss": float(step)}, step)
    logger.save()
    path = tmp_path / "metrics.csv"
    whole = path.read_text()
    for cut in ("2.0", whole.splitlines()[-1][:1]):
        path.write_text(whole + cut)
        again = RunLogger(tmp_path, 3)
        again.log_metrics({"train/loss": 3.0}, 3)
        again.save()
        assert [row[0] for row in rows(tmp_path)] == [0, 1, 2, 3]


def test_nothing_is_taken_out_before_something_is_logged(tmp_path):
    """Another process may be training there, and this one be refused."""
    logger = RunLogger(tmp_path, 0)
    for step in range(3):
        logger.log_metrics({"train/loss": float(step)}, step)
    logger.save()
    again = RunLogger(tmp_path, 1)
    assert again.experiment is again.experiment
    again.save()
    assert [row[0] for row in rows(tmp_path)] == [0, 1, 2]
