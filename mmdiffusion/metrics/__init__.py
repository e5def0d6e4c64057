"""Samples against references: tensors in, numbers with a protocol out."""

from mmdiffusion.metrics.base import SampleMetric
from mmdiffusion.metrics.classifier import SmallClassifier
from mmdiffusion.metrics.features import FeatureExtractor, InceptionFeatures, to_uint8
from mmdiffusion.metrics.frechet import FrechetDistance, frechet_distance
from mmdiffusion.metrics.inception import InceptionScore
from mmdiffusion.metrics.judge import ClassificationAccuracy, Judge, JudgedAccuracy, SVMJudge

__all__ = [
    "ClassificationAccuracy",
    "FeatureExtractor",
    "FrechetDistance",
    "InceptionFeatures",
    "InceptionScore",
    "Judge",
    "JudgedAccuracy",
    "SVMJudge",
    "SampleMetric",
    "SmallClassifier",
    "frechet_distance",
    "to_uint8",
]
