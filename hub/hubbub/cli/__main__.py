"""`python -m hubbub.cli` is `hubbub`."""

from __future__ import annotations

import sys

from hubbub.cli.app import main

sys.exit(main())
