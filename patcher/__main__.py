"""`python -m dsv4_serve.patcher` is `dsv4 patch`."""

import sys

from .cli import main

sys.exit(main(sys.argv[1:]))
