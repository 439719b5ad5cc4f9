"""``python -m tinygrad_hw`` is the command ``tinygrad-hw``."""

import sys

from tinygrad_hw.cli import main

sys.exit(main())
