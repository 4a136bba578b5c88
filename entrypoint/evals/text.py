"""Format the result of an evaluation as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .evaluate import verdict


def text(result: Mapping[str, Any]) -> str:
    """Return each metric with its interval and published figures, the cut answers, and the verdict last."""
    total, cut = result["total"], result["cut"]
    lines = [f"{result['task']}, {result['thinking']}, {result['model'] or 'an unknown model'}: {total} answers"]
    for score in result["scores"]:
        lines.append(f"  {score['metric']:34}{share(score)}")
        for figure in score["published"]:
            lines += [
                f"    published {share(figure)}: {figure['verdict']}",
                f"      {figure['settings']}",
                f"      {figure['source']}",
            ]
    right, whole = result["scores"][0]["of-whole-answers"]
    lines.append(
        f"  cut at {result['sampling']['max_tokens']} tokens: {cut}"
        + (f"; of the others {right} of {whole} are correct" if cut else "")
    )
    lines += [f"  samples: {result['samples']}", f"  result: {result['file']}"]
    lines.append(verdict(result) or "no published figure for this model, task and mode")
    return "\n".join(lines)


def share(figure: Mapping[str, Any]) -> str:
    """Return a share of right answers with its interval."""
    low, high = figure["interval"]
    correct, total = figure["correct"], figure["total"]
    return f"{correct} of {total} = {correct / total:.1%} ({low:.1%} to {high:.1%})"
