"""The page at `/`: one file without data, read once. Its script asks the other paths; its policy allows no more."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

CONTENT_TYPE = "text/html; charset=utf-8"
FILE = Path(__file__).with_name("page.html")


@cache
def html() -> bytes:
    """Return the page."""
    return FILE.read_bytes()


@cache
def headers() -> dict[str, str]:
    """Return the headers of the page: other answers are for programs, and need none."""
    return {
        "content-security-policy": policy(html().decode()),
        "referrer-policy": "no-referrer",
        "vary": "accept",
    }


def policy(page: str) -> str:
    """Return a Content-Security-Policy for exactly the style and the script of this page, and its own origin."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(page, 'script')}",
            f"style-src {_hash(page, 'style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(page: str, tag: str) -> str:
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
