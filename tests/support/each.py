"""One test for many cases that each cost less than a test does: milliseconds, to collect it, hand it out and report it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest

Test = Callable[..., None]


def each(names: str, cases: Iterable[Any], ids: Callable[[Any], object] = str) -> Callable[[Test], Test]:
    """
    Call the test with every case, as `pytest.mark.parametrize` does, and fail with all that failed, each by its name.

    For checks that leave nothing behind: every case gets the same fixtures.
    """
    arguments = names.split(", ")
    listed = list(cases)

    def one_test(test: Test) -> Test:
        @functools.wraps(test)
        def every(**fixtures: Any) -> None:
            __tracebackhide__ = True
            assert listed, "there is no case"
            failed = []
            for case in listed:
                values = case if len(arguments) > 1 else (case,)
                try:
                    test(**fixtures, **dict(zip(arguments, values, strict=True)))
                except (Exception, pytest.fail.Exception) as error:
                    failed.append(f"[{ids(case)}] {type(error).__name__}: {error}")
            assert not failed, "\n".join([f"{len(failed)} of {len(listed)} cases failed", *failed])

        signature = inspect.signature(test)
        fixtures = [given for name, given in signature.parameters.items() if name not in arguments]
        every.__signature__ = signature.replace(parameters=fixtures)  # type: ignore[attr-defined]
        return every

    return one_test
