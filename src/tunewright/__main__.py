"""``python -m tunewright`` is the command ``tunewright``."""

from __future__ import annotations

import sys

from tunewright.cli.main import main

sys.exit(main())
