"""`python -m albatros` is the `albatros` command."""

import sys

from albatros.cli import main

sys.exit(main())
