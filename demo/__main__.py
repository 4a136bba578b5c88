"""`python -m dsv4_serve.demo`."""

import sys

from .cli import main

sys.exit(main())
