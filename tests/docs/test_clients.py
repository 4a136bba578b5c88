"""docs/how-to/clients.md: every block of Python and of shell is run against the demo, as it stands but for the port."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsv4_serve.demo import llama
from tests.support.patience import slowness

PAGE = Path(__file__).parents[2] / "docs/how-to/clients.md"
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
PROGRAMS = {"python": [sys.executable, "-c"], "bash": ["bash", "-euc"]}
START = llama.ANSWER[:20]
EXPECTED = [
    [f'"reasoning":"{llama.REASONING}"', START],
    [f"thought: {llama.REASONING}", f"answer: {llama.ANSWER}"],
    [llama.REASONING + llama.ANSWER],
    ["call: water_level {'station': 'constructed'}", f"answer: {START}"],
    ["ship: name='demo' launched=1 sails=False"],
    [f"answer: {START}"],
    ["empty: None length", "answer: One: a draft", "prompt tokens: "],
    ["blocks: ['thinking', 'tool_use'] tool_use", f"answer: {START}"],
    [f"thought: {llama.REASONING}", f"answer: {START}"],
    [f"answer: {START}", "'args': {'station': 'constructed'}"],
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_a_snippet_does_what_the_page_says(running_demo, number):
    language, text = BLOCKS[number]
    for package in re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; requirements/dev.txt pins it, and `make venv` installs it")
    assert "http://localhost:8000" in text
    here = text.replace("http://localhost:8000", running_demo.url)
    done = subprocess.run(
        [*PROGRAMS[language], here],
        capture_output=True,
        text=True,
        timeout=300 * slowness(),
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    for expected in EXPECTED[number]:
        assert expected in done.stdout


@pytest.mark.unit
def test_every_block_is_expected_to_do_something():
    assert len(BLOCKS) == len(EXPECTED)
