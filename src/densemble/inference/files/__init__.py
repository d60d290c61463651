"""Prediction of many images: read ahead, journal, write behind."""
