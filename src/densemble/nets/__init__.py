"""Networks as pure tensors: backbones, cuts, heads and the dense model. No disk but for pretrained weights."""
