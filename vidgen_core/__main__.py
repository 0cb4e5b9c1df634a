"""``python -m vidgen_core`` is ``vidgen``."""

import sys

from vidgen_core.cli import main

sys.exit(main())
