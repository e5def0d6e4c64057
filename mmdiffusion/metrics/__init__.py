"""Samples against references: tensors in, numbers with a protocol out."""

from mmdiffusion.metrics.alignment import BeatAlignment
from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.metrics.classifier import SmallClassifier
from mmdiffusion.metrics.clip_score import CLIPScore
from mmdiffusion.metrics.features import FeatureExtractor, InceptionFeatures, to_uint8
from mmdiffusion.metrics.frechet import FrechetDistance, frechet_distance
from mmdiffusion.metrics.inception import InceptionScore
from mmdiffusion.metrics.judge import ClassificationAccuracy, Judge, JudgedAccuracy, LabelAccuracy, SVMJudge
from mmdiffusion.metrics.onsets import AudioBeats, BeatDetector, KinematicBeats, LibrosaBeats, OnsetPeaks
from mmdiffusion.metrics.reconstruction import PeakSignalNoiseRatio, VisibleError
from mmdiffusion.metrics.reference import Reference
from mmdiffusion.metrics.retrieval import RetrievalRecall
from mmdiffusion.metrics.rhythm import (
    BeatCoverage,
    BeatF1,
    BeatFMeasure,
    BeatHit,
    BeatHitSpread,
    BeatPrecision,
    BeatPrecisionSpread,
)
from mmdiffusion.metrics.scenes import CaptionAccuracy, SceneReader
from mmdiffusion.metrics.segmentation import MeanIntersectionOverUnion
from mmdiffusion.metrics.tokens import TokenJudge
from mmdiffusion.metrics.zero_shot import ZeroShotAccuracy

__all__ = [
    "AudioBeats",
    "BeatAlignment",
    "BeatCoverage",
    "BeatDetector",
    "BeatF1",
    "BeatFMeasure",
    "BeatHit",
    "BeatHitSpread",
    "BeatPrecision",
    "BeatPrecisionSpread",
    "CLIPScore",
    "CaptionAccuracy",
    "ClassificationAccuracy",
    "FeatureExtractor",
    "FrechetDistance",
    "InceptionFeatures",
    "InceptionScore",
    "Judge",
    "JudgedAccuracy",
    "KinematicBeats",
    "LabelAccuracy",
    "LibrosaBeats",
    "MeanIntersectionOverUnion",
    "OnsetPeaks",
    "PeakSignalNoiseRatio",
    "Reference",
    "RetrievalRecall",
    "SVMJudge",
    "SampleMetric",
    "SceneReader",
    "SmallClassifier",
    "TokenJudge",
    "VisibleError",
    "ZeroShotAccuracy",
    "frechet_distance",
    "to_uint8",
]
