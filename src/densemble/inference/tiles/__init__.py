"""Images of any size: windows, streaming, stitching."""
