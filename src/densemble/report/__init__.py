"""Images of how a training went."""
