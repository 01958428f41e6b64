"""Lets `python -m trainer` be `trainer`."""

import os
import sys

if sys.path[0] in ("", os.getcwd()):  # as with the command, what lies there shadows nothing
    del sys.path[0]

from trainer.cli import main

raise SystemExit(main())
