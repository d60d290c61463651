"""Disagreement of the members on one image."""

from densemble.ensemble.prediction import Prediction


def disagreement_of(prediction: Prediction) -> float:
    """Return the mean mutual information or, for values, the mean standard deviation over the members."""
    information = prediction.mutual_information
    return float((prediction.spread().sqrt() if information is None else information).mean())
