"""``python -m vaultauthz``."""

from __future__ import annotations

import sys

from vaultauthz.cli import main

sys.exit(main())
