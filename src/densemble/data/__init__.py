"""Data sets: layouts, checks, transforms, and the cache of decoded images."""
