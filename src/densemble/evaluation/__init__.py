"""Evaluation: scores, uncertainty checks and benchmarks of ensembles."""
