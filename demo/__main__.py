"""`python -m dsv4_serve.demo` is `make demo`."""

import sys

from .cli import main

sys.exit(main())
