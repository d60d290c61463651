"""From pictures on disk or in memory to predictions."""
