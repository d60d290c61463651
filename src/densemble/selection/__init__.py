"""From trained members to one ensemble: candidates, selection, combination rule, calibration, guarantee, cascade."""
