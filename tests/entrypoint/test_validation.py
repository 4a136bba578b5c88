"""A text of a wrong form is answered in words, never with a regular expression."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ValidationError

from dsv4_serve import entrypoint
from dsv4_serve.entrypoint import validation
from tests.support.sources import TOGETHER, tree

pytestmark = TOGETHER


class Shelf(BaseModel):
    """Has one place."""

    place: Annotated[str, validation.text_like("[a-z]*", "write lower-case letters")] = ""


@pytest.mark.parametrize("text", ["", "a", "abc"])
def test_a_text_that_matches_stays(text: str) -> None:
    assert Shelf(place=text).place == text


@pytest.mark.parametrize("text", ["A", "a1", "a\n", "a b"])
def test_another_is_answered_with_what_to_write(text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Shelf(place=text)
    assert validation.sentence(refused.value) == "place: write lower-case letters"


def test_no_type_has_a_pattern_that_pydantic_would_show() -> None:
    files = sorted(Path(entrypoint.__path__[0]).rglob("*.py"))
    assert files
    found = [
        f"{file}:{node.lineno}"
        for file in files
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and "pattern" in {word.arg for word in node.keywords}
    ]
    assert not found, "use validation.text_like"
