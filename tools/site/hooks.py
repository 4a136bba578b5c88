"""
What mkdocs needs to know about this repository: the order of the pages, and links that leave docs/.

The navigation is docs/index.md: its headings and the links beneath each. A link to a file outside of docs/ works on
GitHub as it is; the site gets a copy of that file as text, below `repository/`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\((?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> None:
    """Read the navigation from the index."""
    config.nav = navigation((DOCS / "index.md").read_text(encoding="utf-8"))


def navigation(index: str) -> list[Any]:
    """Return a section for each heading of an index, after the pages that are linked above all headings only."""
    first, *parts = re.split(r"^## +", index, flags=re.MULTILINE)
    sections = {title: _pages(body) for title, _, body in (part.partition("\n") for part in parts)}
    inside = {page for pages in sections.values() for page in pages}
    above = [page for page in _pages(first) if page not in inside]
    return ["index.md", *above, *({title: pages} for title, pages in sections.items() if pages)]


def _pages(text: str) -> list[str]:
    found = (match["path"] for match in LINK.finditer(text))
    return list(dict.fromkeys(path for path in found if path.endswith(".md") and not path.startswith("..")))


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    """Add the files outside of docs/ that pages link to."""
    for page in files.documentation_pages():
        for match in LINK.finditer(FENCED.sub("", page.content_string)):
            if (path := outside(page.src_uri, match["path"])) and not files.get_file_from_path(copy_of(path)):
                files.append(File.generated(config, copy_of(path), abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Point links that leave docs/ to the copies."""
    folder = Path(page.file.src_uri).parent

    def local(match: re.Match[str]) -> str:
        path = outside(page.file.src_uri, match["path"])
        return f"]({os.path.relpath(copy_of(path), folder)})" if path else match[0]

    return LINK.sub(local, markdown)


def copy_of(path: str) -> str:
    """Return where the site has its copy of a file."""
    return f"repository/{path}.txt"


def outside(source: str, link: str) -> str | None:
    """Return the file outside of docs/ to which a page links, from the top of the repository; None for another link."""
    if re.match(r"[a-z]+:", link):
        return None
    target = (DOCS / source).parent.joinpath(link).resolve()
    if target.is_relative_to(DOCS):
        return None
    if not target.is_file():
        raise PluginError(f"docs/{source} links to {link}, which is not a file of this repository")
    return str(target.relative_to(ROOT))
