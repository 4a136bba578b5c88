"""`python -m dsv4_serve.entrypoint` is `dsv4`."""

import sys

from dsv4_serve.entrypoint.cli import main

sys.exit(main())
