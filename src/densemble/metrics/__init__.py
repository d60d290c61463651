"""Streaming metrics: images are added one by one, and only sums are stored."""

from densemble.metrics.heatmap import DensityMetrics, KeypointMetrics
from densemble.metrics.image import ImageMetrics
from densemble.metrics.metric import Metric, MetricValues, Objective, ScoredImage
from densemble.metrics.multilabel import MultilabelMetrics
from densemble.metrics.regression import RegressionMetrics
from densemble.metrics.saliency import SaliencyMetrics
from densemble.metrics.segmentation import SegmentationMetrics

__all__ = [
    "DensityMetrics",
    "ImageMetrics",
    "KeypointMetrics",
    "Metric",
    "MetricValues",
    "MultilabelMetrics",
    "Objective",
    "RegressionMetrics",
    "SaliencyMetrics",
    "ScoredImage",
    "SegmentationMetrics",
]
