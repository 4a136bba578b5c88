"""JUnit XML: where it is written, and what it says of a run that could ask nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

from . import plain_file
from .errors import HostError, UserError


@contextmanager
def error_kept(path: Path | None, suite: str) -> Iterator[None]:
    """Write an error of the block too; otherwise the file of an earlier run would be taken for this one's."""
    try:
        yield
    except UserError as error:
        if path:
            write(path, of_error(suite, str(error)))
        raise


def of_error(suite: str, sentence: str) -> str:
    """Return a document with one test, which could not run."""
    names = {"name": suite, "tests": "1", "errors": "1", "failures": "0", "skipped": "0", "time": "0.000"}
    root = ET.Element("testsuites", names)
    case = ET.SubElement(ET.SubElement(root, "testsuite", names), "testcase", {"classname": suite, "name": "replica"})
    ET.SubElement(case, "error", {"message": xml_text(sentence)})
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def write(path: Path, text: str) -> None:
    """Write a document; raise HostError where that is impossible."""
    try:
        plain_file.write_text(path, text)
    except OSError as error:
        raise HostError(f"--junit: cannot write {path} ({error.strerror}).") from None


def xml_text(text: str) -> str:
    """Return text without the control characters that XML 1.0 cannot hold."""
    return "".join(char for char in text if char >= " " or char in "\t\n")
