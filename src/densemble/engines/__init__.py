"""Where members are trained."""
