"""``python -m rubriscope.cli``."""

import sys

from . import main

sys.exit(main())
