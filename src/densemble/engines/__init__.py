"""Engines: train the members of a run, with a time budget if requested."""
