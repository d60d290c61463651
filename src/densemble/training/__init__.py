"""Training of one member; the only home of Lightning."""
