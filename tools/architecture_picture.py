"""
Draw docs/images/architecture-light.svg and architecture-dark.svg: what a request and a start pass through.

    python -m tools.architecture_picture
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from tools.colours import BAND, GRID, INK, NOTE, PAPER, SERIES, dark

FOLDER = Path(__file__).resolve().parent.parent / "docs/images"
WIDTH, HEIGHT = 860, 388
TOKENS, CONTROL = SERIES[0], SERIES[1]
FONT = "-apple-system,Segoe UI,Helvetica,Arial,sans-serif"
LABEL = (
    "A request goes from the client through the balancer to vLLM in a replica; dsv4 serve resolves a plan, checks the"
    " host, starts and watches vLLM, and answers probes on port 8001."
)


@dataclass(frozen=True)
class Box:
    """A rectangle with a title and lines beneath it."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    colour: str = GRID
    fill: str = PAPER

    def svg(self) -> str:
        """Return the rectangle and its text."""
        frame = f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="8" fill="{self.fill}"'
        title = f'font-size="15" font-weight="bold" fill="{INK}">{escape(self.title)}</text>'
        return "\n".join([
            f'{frame} stroke="{self.colour}" stroke-width="1.5"/>',
            f'<text x="{self.x + 12}" y="{self.y + 24}" {title}',
            *(text(self.x + 12, self.y + 45 + 19 * number, line, NOTE) for number, line in enumerate(self.lines)),
        ])  # fmt: skip


BOXES = (
    Box(12, 44, 112, 76, "Client", ("OpenAI or", "Anthropic API")),
    Box(164, 44, 140, 95, "Balancer", ("HAProxy :8000", "asks for the key", "ready replicas")),
    Box(344, 12, 504, 340, "Replica: one container, tini as its first process", fill=BAND),
    Box(560, 44, 272, 95, "vLLM 0.32.0, patched", ("API server :8000, engine, workers", "draft head"), TOKENS),
    Box(360, 158, 472, 180, "dsv4 serve", (), CONTROL),
    Box(376, 192, 92, 58, "catalog", ("profiles",)),
    Box(484, 192, 92, 58, "resolve", ("one plan",)),
    Box(592, 192, 92, 58, "doctor", ("checks",)),
    Box(700, 192, 116, 58, "supervisor", ("start, watch",)),
    Box(376, 264, 440, 60, "health server :8001", ("/startupz  /livez  /readyz  /plan  /metrics",), CONTROL),
)


def text(x: int, y: int, words: str, colour: str) -> str:
    """Return one line of text."""
    return f'<text x="{x}" y="{y}" font-size="13" fill="{colour}">{escape(words)}</text>'


def arrow(points: str, colour: str, *, dashed: bool = False) -> str:
    """Return a line with a head; a dashed one carries no token."""
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    head = "tokens" if colour == TOKENS else "control"
    line = f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"'
    return f'{line}{dash} marker-end="url(#{head})"/>'


def marker(name: str, colour: str) -> str:
    """Return the head of an arrow."""
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
        f' orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" fill="{colour}"/></marker>'
    )


def picture() -> str:
    """Return the light picture."""
    arrows = (
        arrow("124,82 164,82", TOKENS),
        arrow("304,82 560,82", TOKENS),
        arrow("468,221 484,221", CONTROL),
        arrow("576,221 592,221", CONTROL),
        arrow("684,221 700,221", CONTROL),
        arrow("758,192 758,139", CONTROL, dashed=True),
        arrow("234,139 234,294 376,294", CONTROL, dashed=True),
    )
    words = (
        text(360, 73, "requests, tokens", TOKENS),
        text(246, 286, "GET /readyz", CONTROL),
        text(12, 376, "Solid: tokens, which do not pass through dsv4.", TOKENS),
        text(360, 376, "Dashed: dsv4 starts, watches and ends vLLM.", CONTROL),
    )
    root = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    parts = (
        f'{root} role="img" aria-label="{LABEL}" font-family="{FONT}">',
        f"<defs>{marker('tokens', TOKENS)}{marker('control', CONTROL)}</defs>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        *(box.svg() for box in BOXES),
        *arrows,
        *words,
    )
    return "\n".join([*parts, "</svg>", ""])


def pictures() -> dict[str, str]:
    """Return both pictures by the name of their file."""
    light = picture()
    return {"architecture-light.svg": light, "architecture-dark.svg": dark(light)}


if __name__ == "__main__":
    for name, svg in pictures().items():
        (FOLDER / name).write_text(svg, encoding="utf-8")
        print(FOLDER / name)
