"""`python -m dsv4_serve.entrypoint` is `dsv4`."""

import sys

from .cli.main import main

sys.exit(main())
