"""Members, weights, combination and uncertainty as pure tensors; no disk."""
