"""``python -m migrate.lab`` is ``migrate-lab``."""

import sys

from migrate.lab.cli import main

sys.exit(main())
