"""Training of one member; the only package that imports Lightning."""
