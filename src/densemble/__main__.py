"""``python -m densemble``."""

import os
import sys

if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109 (pathlib could be shadowed)
    del sys.path[0]  # a yaml.py or torch.py in the current folder must not replace the installed module

from densemble.cli import main

main()
