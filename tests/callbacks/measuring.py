"""Evaluate on a method that never errs, for several test files."""

import json

from mmdiffusion.callbacks import Draw, Evaluate
from mmdiffusion.metrics import ClassificationAccuracy, FrechetDistance, JudgedAccuracy, SmallClassifier
from tests.helpers import Oracle, Pictures, PixelJudge, build_trainer

DRAWS = {"conditional": Draw(["label"]), "joint": Draw([])}
JUDGED, CLASSIFIED, DISTANCE = "judged_accuracy[pixel]", "classify_accuracy", "fid[tiny]"


def build_metrics():
    extractor = SmallClassifier(name="tiny", num_features=4, num_steps=2)
    return [ClassificationAccuracy(), JudgedAccuracy(PixelJudge()), FrechetDistance(extractor)]


def measure(folder, method=None, num_samples=40, batch_size=16, draws=None, metrics=None, **settings):
    method = method or Oracle()
    callback = Evaluate(metrics or build_metrics(), draws or DRAWS, num_samples, batch_size)
    build_trainer(folder, callback, **settings).test(method, datamodule=Pictures(), verbose=False)
    return json.loads((folder / "metrics.json").read_text())
