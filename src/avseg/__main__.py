"""Run the command line with ``python -m avseg``."""

import sys

from avseg.cli import main

sys.exit(main())
