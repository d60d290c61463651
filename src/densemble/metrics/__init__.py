"""Streaming metrics: pictures go in one by one, only sums are kept."""

from densemble.metrics.base import Metric, MetricValues
from densemble.metrics.regression import RegressionMetrics
from densemble.metrics.saliency import SaliencyMetrics
from densemble.metrics.segmentation import SegmentationMetrics

__all__ = ["Metric", "MetricValues", "RegressionMetrics", "SaliencyMetrics", "SegmentationMetrics"]
