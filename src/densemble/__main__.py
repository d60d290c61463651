"""``python -m densemble``."""

from densemble.cli import main

main()
