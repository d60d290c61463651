"""Prediction of images of any size: windows, streaming, stitching."""
