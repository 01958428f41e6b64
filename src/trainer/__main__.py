"""`python -m trainer`: the same as `trainer`."""

import os
import sys

if sys.path[0] in ("", os.getcwd()):  # modules in the working directory shadow none, as with the command
    del sys.path[0]

from trainer.cli import main

raise SystemExit(main())
