"""Scores, uncertainty checks and benchmarks of ensembles."""
