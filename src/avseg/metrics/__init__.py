"""Scores of audio-visual segmentation: named protocols, functions that score one batch, and calibration."""

from avseg.metrics.functional import binary_fscore, binary_iou, semantic_scores
from avseg.metrics.protocols import (
    AVSBench,
    AVSBenchSemantic,
    DatasetLevel,
    Davis,
    Headline,
    MaxF,
    PerClass,
    Protocol,
    Strict,
    decide,
    foreground,
    headline,
    protocols,
)

__all__ = [
    "AVSBench",
    "AVSBenchSemantic",
    "DatasetLevel",
    "Davis",
    "Headline",
    "MaxF",
    "PerClass",
    "Protocol",
    "Strict",
    "binary_fscore",
    "binary_iou",
    "decide",
    "foreground",
    "headline",
    "protocols",
    "semantic_scores",
]
