"""Types of command line arguments, for argparse."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """Return a whole number from 1 up, written in digits; raise ArgumentTypeError for anything else."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)
