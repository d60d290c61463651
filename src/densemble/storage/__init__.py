"""Disk: pictures and maps, run folders, the one-file artifact."""
