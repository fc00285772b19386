"""`python -m store`, which `./cloudtrial store` starts."""

from __future__ import annotations

import sys

from store.cli import main

if __name__ == "__main__":
    sys.exit(main())
