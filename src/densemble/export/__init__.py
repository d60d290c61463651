"""Export of a trained ensemble to files that run without densemble."""
