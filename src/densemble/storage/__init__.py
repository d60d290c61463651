"""Files: images and maps, run folders, and the artifact."""
