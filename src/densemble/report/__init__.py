"""Pictures of how a training went."""
