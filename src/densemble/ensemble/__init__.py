"""Members, weights, combination and uncertainty: pure tensor code, without access to files."""
