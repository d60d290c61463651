"""Time and memory of an ensemble on this machine, beside the naive loop and the limits of the machine."""
