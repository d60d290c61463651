"""Execution of networks: backends, their selection on this machine, caches, shared compilation."""
