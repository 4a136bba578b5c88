"""Report the state of a tree as data, and verify that it holds the whole series."""

from __future__ import annotations

from typing import Any

from .diff import blob_id
from .series import TRAILERS, Series
from .tree import Tree, leftovers, states


def report(tree: Tree, series: Series) -> dict[str, Any]:
    """Return vLLM's version and commit (None where the wheel names none) and each patch with its hash and state."""
    patches = [
        {
            "name": s.patch.name,
            "subject": s.patch.subject,
            "sha256": s.patch.sha256,
            "state": s.verdict,
            **{key.lower(): s.patch.trailers[key].value for key in TRAILERS},
            "files": [d.path for d in s.patch.diffs],
        }
        for s in states(tree, series)
    ]
    vllm = {"distribution": tree.distribution, "version": tree.version, "commit": tree.commit}
    return {"vllm": vllm, "series": series.name, "patches": patches}


def verify(tree: Tree, series: Series) -> list[str]:
    """Return what is wrong: files that differ from the end of the series, modules that do not compile, leftovers."""
    problems = []
    for path, chain in series.chains.items():
        data = tree.read(path)
        if blob_id(data) != chain[-1].post:
            problems.append(f"{path} has blob {blob_id(data)[:7]}, but the series ends with {chain[-1].post[:7]}")
        elif data is not None and path.endswith(".py"):
            try:
                compile(data, path, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                problems.append(f"{path} does not compile: {error}")
    return problems + [f"{file} is a leftover" for file in leftovers(tree)]
