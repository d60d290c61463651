"""Folders become samples: layouts, checks, transforms, and the decoded cache."""
