"""`make docs`: the site builds without a warning, its links lead somewhere, and it loads nothing from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mkdocs.exceptions import PluginError

from tools.site import hooks

ROOT = Path(__file__).resolve().parents[2]
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "link": "href"}
"""Elements that load what they name, and the attribute that names it. (`link` names no page of the site here.)"""
LEFT_OVER = re.compile(r"```|\n *(?:[*-]|\d+\.) |\|[ :-]*---")
"""Markdown in a paragraph: a list, a table or a fence that mkdocs did not recognize."""


class Document(HTMLParser):
    """The ids of a page, what it loads, where it links, and the text of its paragraphs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.classes: set[str] = set()
        self.paragraphs: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        self.classes |= set(given.get("class", "").split())
        if given.get(LOADING.get(tag, ""), "") and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given[LOADING[tag]])
        self.loads += [candidate.split()[0] for candidate in given.get("srcset", "").split(",") if candidate.strip()]
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "p":
            self.paragraphs.append("")
        if tag in ("p", "code"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "p":
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "tools/site/mkdocs.yml"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [*argv, "--site-dir", folder], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def documents(site: Path) -> dict[Path, Document]:
    """Every page; the one for a missing address names files from the top of a host, and is left out."""
    pages = (path for path in site.rglob("*.html") if path.name != "404.html")
    return {path.resolve(): Document(path.read_text(encoding="utf-8")) for path in pages}


def foreign(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def broken(page: Path, documents: dict[Path, Document]) -> Iterator[str]:
    """Yield what a page loads or links to within the site, and is not there."""
    for address in (*documents[page].loads, *documents[page].links):
        parts = urlsplit(address)
        if parts.scheme in ("", "file") and not parts.netloc:
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            ids = documents[target].ids if target in documents else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in ids):
                yield address


def test_every_page_of_docs_is_built(site: Path) -> None:
    pages = sorted(path.relative_to(hooks.DOCS).with_suffix(".html") for path in hooks.DOCS.rglob("*.md"))
    assert [page for page in pages if not (site / page).is_file()] == []


def test_links_and_anchors_lead_somewhere(documents: dict[Path, Document]) -> None:
    assert {str(page): found for page in documents if (found := list(broken(page, documents)))} == {}


def test_nothing_is_loaded_from_another_host(documents: dict[Path, Document], site: Path) -> None:
    assert [address for document in documents.values() for address in document.loads if foreign(address)] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"""@import|url\(["']?(?:https?:)?//[^)]*""", styles) == []
    assert not any("mermaid" in document.classes for document in documents.values()), "the theme fetches its program"


def test_no_markdown_is_left_over(documents: dict[Path, Document]) -> None:
    left = {page.name: p for page, document in documents.items() for p in document.paragraphs if LEFT_OVER.search(p)}
    assert left == {}


def test_search_needs_no_server(site: Path) -> None:
    assert (site / "search/search_index.js").read_text(encoding="utf-8").startswith("var __index = {")


def test_the_checks_see_what_they_are_for(tmp_path: Path) -> None:
    text = '<p id="here">Two:\n* one</p><source srcset="https://cdn.example/x.svg 2x"><a href="#gone"></a><a href="x.html"></a>'
    page = tmp_path / "page.html"
    documents = {page: Document(text)}
    assert list(broken(page, documents)) == ["#gone", "x.html"]
    assert [foreign(address) for address in documents[page].loads] == [True]
    assert LEFT_OVER.search(documents[page].paragraphs[0])


def test_the_navigation_is_the_index() -> None:
    index = "# Top\n[g](glossary.md), [a](x/a.md)\n\n## One\n* [a](x/a.md) and [b](x/b.md#c)\n* [a](x/a.md)\n\n## None\n[out](../README.md)\n"
    assert hooks.navigation(index) == ["index.md", "glossary.md", {"One": ["x/a.md", "x/b.md"]}]


def test_a_link_out_of_docs_has_to_name_a_file() -> None:
    assert hooks.outside("how-to/a.md", "../../AGENTS.md") == "AGENTS.md"
    assert hooks.outside("how-to/a.md", "../index.md") is None
    assert hooks.outside("how-to/a.md", "https://example.com/a.md") is None
    with pytest.raises(PluginError, match="not a file"):
        hooks.outside("how-to/a.md", "../../profiles")
