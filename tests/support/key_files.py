"""Key files that every reader takes, and that every reader refuses: `dsv4` and HAProxy."""

from __future__ import annotations

A, B = "a-key-of-0123456789", "b-key-of-0123456789"

TAKEN: list[tuple[bytes, list[tuple[str, str, int | None, int | None]]]] = [
    (b"secret\n", [("default", "secret", None, None)]),
    (b"\xef\xbb\xbfsecret \r\n\n", [("default", "secret", None, None)]),
    (b"# one key\n\nsecret", [("default", "secret", None, None)]),
    (f"alice {A}".encode(), [("alice", A, None, None)]),
    (
        f"\xef\xbb\xbf# Ä\r\n\r\nalice\t{A}  60\r\nbob {B} - 4\r\n".encode("latin-1").replace(b"\xc4", "Ä".encode()),
        [("alice", A, 60, None), ("bob", B, None, 4)],
    ),
    (f"alice {A} 1000000 1\nalice {B} 1000000 1\n".encode(), [("alice", A, 1000000, 1), ("alice", B, 1000000, 1)]),
    (f"{'n' * 64} {A}".encode(), [("n" * 64, A, None, None)]),
    (f"a,b {A}".encode().replace(b",", b"."), [("a.b", A, None, None)]),
    (b"alice " + b"0123456789" * 409 + b"012345", [("alice", "0123456789" * 409 + "012345", None, None)]),
]

REFUSED: list[tuple[bytes, str]] = [
    (b"", "no key"),
    (b"# a comment\n\n", "no key"),
    (b"geheim-1\ngeheim-2\n", "line 1: write NAME KEY"),
    (f"alice {A}\ngeheim\n".encode(), "line 2: write NAME KEY"),
    (f"alice {A} 1 1 geheim\n".encode(), "line 1: write NAME KEY"),
    (b"alice geheim\n", "line 1: the key is weak"),
    (b"alice aaaabbbbccccddddeeee\n", "line 1: the key is weak"),
    (f"al/ice {A}\n".encode(), "line 1: a name has"),
    (f"-alice {A}\n".encode(), "line 1: a name has"),
    (f"{'n' * 65} {A}\n".encode(), "line 1: a name has"),
    (f"alice {A} 0\n".encode(), "line 1: a limit is"),
    (f"alice {A} -1\n".encode(), "line 1: a limit is"),
    (f"alice {A} 1e3\n".encode(), "line 1: a limit is"),
    (f"alice {A} 1 1000001\n".encode(), "line 1: a limit is"),
    (f"alice {A}\n\nbob {A}\n".encode(), "line 3: the same key as in line 1"),
    (f"alice {A} 5\nbob {B}1\nalice {B} 6\n".encode(), "line 3: alice has other limits than in line 1"),
    (f"alice {A}\x00\n".encode(), "line 1: only printable ASCII"),
    (f"alice {A}\x0b\n".encode(), "line 1: only printable ASCII"),
    ("alice schlüssel-geheim-0123456\n".encode(), "line 1: only printable ASCII"),
    (f"alice {A}\xa0\n".encode(), "line 1: only printable ASCII"),
    (b"alice \xff\xfe0123456789012\n", "not UTF-8|only printable ASCII"),
    (b"alice " + b"0123456789" * 410 + b"\n", "line 1: the key is longer"),
    (b"".join(b"n%d key-%d-0123456789ab\n" % (n, n) for n in range(1001)), "1001 names"),
]
