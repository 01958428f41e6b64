"""`python -m trainer`: the same as `trainer`."""

import os
import sys

if sys.path[0] in ("", os.getcwd()):  # as with the command, the working directory must shadow no module
    del sys.path[0]

from trainer.cli import main

raise SystemExit(main())
