"""Losses of fp32 tensors: pure functions, one family a file; means over what is valid, and 0 where nothing is."""
