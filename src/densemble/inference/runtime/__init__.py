"""How networks are executed: backends, their selection on this machine, caches, joint compilation."""
