"""Prediction: one entry point for Python and the command line."""
