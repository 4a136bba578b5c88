"""The picture of the README is what its tool draws, in light and dark, and its text fits its boxes."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from tools import architecture_picture as tool

WIDE = 0.58
"""The width of a letter of a sans-serif font, on average and at most, in its size."""


@pytest.mark.parametrize(("name", "svg"), tool.pictures().items())
def test_the_files_are_what_the_tool_draws(name: str, svg: str) -> None:
    assert (tool.FOLDER / name).read_text(encoding="utf-8") == svg
    readme = (tool.FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"docs/images/{name}" in readme


def test_no_colour_of_the_light_picture_is_left_in_the_dark_one() -> None:
    light, dark = (set(re.findall(r"#[0-9a-f]{6}", svg)) for svg in tool.pictures().values())
    assert light
    assert not light & dark


def test_every_line_of_text_ends_within_its_box_and_the_picture() -> None:
    for element in ET.fromstring(tool.picture()).iter("{http://www.w3.org/2000/svg}text"):
        x, y, size = (float(element.attrib[key]) for key in ("x", "y", "font-size"))
        end = x + len(element.text or "") * size * WIDE
        inside = [box for box in tool.BOXES if box.x <= x <= box.x + box.width and box.y <= y <= box.y + box.height]
        assert end <= min([tool.WIDTH, *(box.x + box.width for box in inside)]), element.text
