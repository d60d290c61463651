"""Losses of fp32 tensors: pure functions, one file per family. Means are over valid pixels; 0 if there are none."""
