"""``python -m immunogate``."""

from __future__ import annotations

import sys

from immunogate.cli import main

sys.exit(main())
