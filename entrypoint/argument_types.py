"""Types of command line arguments, for argparse."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """Return a whole number from 1 up, written in digits; raise ArgumentTypeError for anything else."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)


def seconds(text: str) -> float:
    """Return a time in seconds, above 0; raise ArgumentTypeError for anything else."""
    if not 0 < (found := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time; give seconds")
    return found
