"""Probe a health server. This imports almost nothing, because HEALTHCHECK runs it every few seconds."""

from __future__ import annotations

import socket
import time

GROUPS = ("startup", "live", "ready")
MOST = 1 << 20
"""The most bytes of an answer that are read."""


def probe(group: str, host: str, port: int, timeout: float) -> tuple[int, str]:
    """
    Ask one of GROUPS; return the exit status and the text: for stdout when the status is 0, else for stderr.

    0 and `ok`; 1 and the lines of the failed checks, or what went wrong.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        answer = _ask(host, port, f"/{group}z", timeout)
    except TimeoutError:
        return 1, f"{where} did not answer within {timeout:g} s; the supervisor hangs, or the machine is overloaded."
    except ConnectionRefusedError:
        return (
            1,
            f"nothing listens on {where}; `dsv4 serve` is not running there, or its port differs (DSV4_HEALTH_PORT).",
        )
    except (OSError, UnicodeError) as error:  # UnicodeError: not a host name
        return 1, f"{where} cannot be reached: {getattr(error, 'strerror', None) or error}."
    return _judge(answer, group, where)


def _ask(host: str, port: int, path: str, timeout: float) -> bytes:
    """
    Return the whole raw answer; HTTP/1.0, so that it ends with the connection.

    A raw socket, because HEALTHCHECK starts a process every few seconds with a budget of 100 ms: http.client takes 60.
    """
    deadline = time.monotonic() + timeout
    answer = b""
    with socket.create_connection((host, port), timeout=timeout) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: dsv4\r\n\r\n".encode())
        while len(answer) < MOST:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            connection.settimeout(remaining)
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
    return 1, f"the server on {where} is not dsv4's health server; name its port with --port or DSV4_HEALTH_PORT."
