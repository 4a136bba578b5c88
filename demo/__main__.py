"""`python -m dsv4_serve.demo`."""

import sys

from dsv4_serve.demo.cli import main

sys.exit(main())
