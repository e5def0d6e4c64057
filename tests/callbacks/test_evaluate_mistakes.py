"""What Evaluate refuses before it measures, and what it leaves out: the metric, the draw or the size is named."""

import pytest

from mmdiffusion.callbacks import Draw, Evaluate
from mmdiffusion.metrics import ClassificationAccuracy, JudgedAccuracy
from mmdiffusion.metrics.base import SampleMetric
from tests.callbacks.measuring import CLASSIFIED, DRAWS, build_metrics, measure
from tests.data.in_files import InFiles
from tests.helpers import Oracle, Pictures, PixelJudge, build_method, check
from tests.methods.build_extras import build

# Metrics -------------------------------------------------------------------------------------------------------


class Choosy(JudgedAccuracy):
    """Needs many samples."""

    min_samples = 25


def test_a_metric_that_needs_more_samples_is_refused_or_left_out_where_there_are_fewer(tmp_path):
    with pytest.raises(ValueError, match=r"num_samples is 20: judged_accuracy\[pixel\] needs at least 25"):
        measure(tmp_path, num_samples=20, metrics=[Choosy(PixelJudge())])
    with pytest.warns(
        UserWarning, match=r"judged_accuracy\[pixel\] of \w+ is left out: it needs 25 samples, here are 20"
    ):
        figures = measure(tmp_path, metrics=[Choosy(PixelJudge()), ClassificationAccuracy()], limit_test_batches=2)
    assert set(figures) == {CLASSIFIED}


def test_an_entry_that_the_training_split_lacks_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"judged_accuracy\[pixel\] learns from tokens, expected.*which has index, image, label"
    ):
        measure(tmp_path, metrics=[JudgedAccuracy(PixelJudge(), entry="tokens")])


def test_a_metric_that_learns_from_a_split_in_files_is_refused_before_a_training():
    callback = Evaluate([JudgedAccuracy(PixelJudge())], DRAWS)
    with pytest.raises(ValueError, match=r"judged_accuracy\[pixel\] learns from image and label.*pretrained"):
        check(callback, Oracle(), InFiles())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda: build_method(weight=0.0), "weight of label is 0: expected above 0 in training"),
        (lambda: build_method(absent_share=0.0), "absent_share of label is 0: expected above 0 in training"),
        (lambda: build("segmentation"), "drawn is 'label': expected image or segmentation from this model"),
        (lambda: build_method(extras={}), "given is 'image': expected nothing from this model"),
    ],
)
def test_a_label_that_the_method_cannot_read_is_refused_before_a_training(method, message):
    with pytest.raises(
        ValueError, match=f"metrics has {CLASSIFIED}, which has .* {message}.*; or leave the metric out"
    ):
        check(Evaluate([ClassificationAccuracy()], {}), method(), Pictures())


def test_metrics_with_one_name_are_refused():
    metrics: list[SampleMetric] = [JudgedAccuracy(PixelJudge()), JudgedAccuracy(PixelJudge())]
    with pytest.raises(ValueError, match=r"metrics.*judged_accuracy\[pixel\]"):
        Evaluate(metrics, DRAWS)


# Draws and sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classify", "real", "shuffled"])
def test_a_draw_with_the_name_of_another_column_is_refused(name):
    with pytest.raises(ValueError, match=rf"draws.*{name}"):
        Evaluate(build_metrics(), {name: Draw(["label"])})


@pytest.mark.parametrize("setting", ["num_samples", "batch_size"])
def test_sizes_below_one_are_refused(setting):
    with pytest.raises(ValueError, match=rf"{setting} is 0.*expected at least 1"):
        Evaluate([], DRAWS, **{setting: 0})


def test_an_unknown_modality_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"draws.conditional: given is 'lable': expected image or label from this model"
    ):
        measure(tmp_path, draws={"conditional": Draw(["lable"])})
