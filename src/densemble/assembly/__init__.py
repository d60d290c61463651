"""From the trained members of a run to one ensemble: candidates, choice, rule, calibration, guarantee, analysis."""
