"""Export of ensembles to other formats and places."""
