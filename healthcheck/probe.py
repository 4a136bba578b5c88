"""`dsv4 probe`: ask a health server one question. It imports next to nothing: HEALTHCHECK runs it every few seconds."""

from __future__ import annotations

import os
import socket
import time

from ..entrypoint.listen import HEALTH_PORT

USAGE = "dsv4 probe startup|live|ready [--host HOST] [--port PORT] [--timeout SECONDS]"
GROUPS = ("startup", "live", "ready")
DEFAULTS = {"--host": "127.0.0.1", "--port": str(HEALTH_PORT), "--timeout": "5"}
MOST = 1 << 20
"""Bytes of an answer that are read at most."""


class _Unusable(Exception):
    pass


def probe(words: list[str]) -> tuple[int, str]:
    """
    Ask as `words` say; return the exit status and the text: for stdout when the status is 0, else for stderr.

    0 and `ok`; 1 and the lines of the checks that failed, or what came instead of an answer; 64 and the usage for words
    that are not understood. The port is DSV4_HEALTH_PORT's where none is given.
    """
    if words[:1] in (["-h"], ["--help"]):
        return 0, USAGE
    try:
        group, host, port, timeout = _read(words)
    except _Unusable as error:
        return 64, f"dsv4 probe: {error}; usage: {USAGE}"
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        answer = _ask(host, port, f"/{group}z", timeout)
    except TimeoutError:
        return 1, f"{where} did not answer within {timeout:g} s; the supervisor hangs, or the machine is overloaded."
    except ConnectionRefusedError:
        return (
            1,
            f"nothing answers on {where}; `dsv4 serve` does not run there, or its port differs (DSV4_HEALTH_PORT).",
        )
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        return 1, f"{where} cannot be asked: {getattr(error, 'strerror', None) or error}."
    return _judge(answer, group, where)


def _read(words: list[str]) -> tuple[str, str, int, float]:
    given = dict(DEFAULTS)
    if port := os.environ.get("DSV4_HEALTH_PORT"):
        given["--port"] = port
    groups = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            groups.append(word)
            continue
        name, equals, value = word.partition("=")
        if name not in DEFAULTS:
            raise _Unusable(f"{name!r} is not known")
        if not equals and not rest:
            raise _Unusable(f"{name} needs a value")
        given[name] = value if equals else rest.pop(0)
    if len(groups) != 1 or groups[0] not in GROUPS:
        raise _Unusable(f"one of {', '.join(GROUPS)} is asked for, not {' '.join(groups) or 'nothing'}")
    return groups[0], given["--host"], _port(given["--port"]), _seconds(given["--timeout"])


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise _Unusable(f"the port is {text!r}, which is none from 1 to 65535 (--port, DSV4_HEALTH_PORT)")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise _Unusable(f"--timeout is {text!r}, which is no number of seconds from 0 to 3600")
    return seconds


def _ask(host: str, port: int, path: str, timeout: float) -> bytes:
    """
    Return the raw answer, whole; HTTP/1.0, so that its end is the connection's.

    A raw socket, as HEALTHCHECK starts a process every few seconds with a budget of 100 ms: http.client alone takes 60.
    """
    deadline = time.monotonic() + timeout
    answer = b""
    with socket.create_connection((host, port), timeout=timeout) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: dsv4\r\n\r\n".encode())
        while len(answer) < MOST:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            part = connection.recv(65536)
            if not part:
                break
            answer += part
    return answer


def _judge(answer: bytes, group: str, where: str) -> tuple[int, str]:
    head, _, body = answer.decode(errors="replace").partition("\r\n\r\n")
    status = head.split(" ", 2)[1] if head.startswith("HTTP/") and head.count(" ") else ""
    *lines, verdict = body.splitlines() or [""]
    if status == "200" and verdict == f"{group}z check passed":
        return 0, "ok"
    if status == "503" and verdict == f"{group}z check failed":
        return 1, "\n".join(line for line in lines if line.startswith("[-]"))
    return 1, f"what answers on {where} is not dsv4's health server; name its port with --port or DSV4_HEALTH_PORT."
