"""Prediction of many image files: reading ahead, journal, background writing."""
