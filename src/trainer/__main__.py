"""Lets `python -m trainer` be `trainer`."""

from trainer.cli import main

raise SystemExit(main())
