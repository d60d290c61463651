"""Disk: images and maps, run folders, the one-file artifact."""
