"""Keep the secrets of our own arguments from `ps`, for as long as a command runs."""

from __future__ import annotations

from collections.abc import Sequence

from .output import print_message


def hide(argv: Sequence[str]) -> None:
    """Overwrite them, and say so; the arguments of processes above us (tini, sudo) cannot be changed."""
    if not argv:
        return
    from .. import own_arguments
    from ..vllm_schema.argv import secrets_in

    if secrets := secrets_in(argv):
        own_arguments.hide(secrets)
        print_message(
            "the arguments of this command hold a secret, which other users may have read; give the key by file"
            " (API_KEY_FILE), a token of the Hub as HF_TOKEN, and others in a profile file that only you can read."
        )
