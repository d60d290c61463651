"""Plots, previews and HTML reports."""
