"""
The page at `/` in a real Chromium, over real health servers whose state the tests set.

One browser serves all of them. What it looks like is judged by people; here it is what a reader is told, and that the
page asks, stores and requests nothing else.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dsv4_serve.entrypoint.draft_floors import Floors
from dsv4_serve.entrypoint.vllm_log import exit_cause
from dsv4_serve.healthcheck import page
from dsv4_serve.healthcheck.state import PHASES, Acceptance, Finding, Health, LastExit
from dsv4_serve.healthcheck.traffic import Traffic
from tests.support.browser import CHROMIUM, Browser, Page, browser
from tests.support.health_server import served
from tests.support.patience import slowness

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]
KEY = "sk-very-secret"
TAB, ENTER, RIGHT = ("Tab", 9), ("Enter", 13, "\r"), ("ArrowRight", 39)
PLAN = {
    "choices": {"profile": "524k", "model-name": "w4a16"},
    "settings": {"served-model-name": {"value": ["deepseek-v4-flash"]}, "port": {"value": 8100}},
}
ENDED = LastExit("engine-died", 82, "the driver reported Xid 79", "RuntimeError: <b>illegal</b> access", 1.7953e9)


def ready(**changes: Any) -> Health:
    now = time.monotonic()
    known: dict[str, Any] = {
        "started": now - 5000,
        "phase": "ready",
        "phase_began": now - 4000,
        "phase_seconds": {"resolving": 1.0, "starting": 14.0, "loading weights": 41.0, "proving": 9.0},
        "engine": 4711,
        "generated_after": 82.0,
        "ready_after": 90.0,
        "gate": Finding("122 of 150 draft tokens accepted (81%)"),
        "gate_acceptance": Acceptance(122, 100, 61, (58, 42)),
        "live_acceptance": Acceptance(12000, 6100, 6000, (5200, 900)),
        "floors": Floors(0.3, (0.4, 0.2)),
        "corruption": Finding("10 prompts agree"),
        "corruption_at": now - 130,
        "traffic": Traffic(3, 1, 0.42, 128.4, 3200.0, 0.84),
        "last_exit": ENDED,
        "plan": PLAN,
    }
    return Health(**{**known, **changes})


def starting(**changes: Any) -> Health:
    now = time.monotonic()
    known: dict[str, Any] = {
        "started": now - 38,
        "phase": "loading weights",
        "phase_began": now - 21,
        "phase_seconds": {"resolving": 1.0, "starting": 16.0},
        "last_start": {"starting": 14.0, "loading weights": 2000.0, "proving": 9.0},
        "engine": 1,
        "percent": 43.0,
        "rate": 1.9 * 2**30,
        "plan": PLAN,
    }
    return Health(**{**known, **changes})


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@contextlib.contextmanager
def shown(chromium: Browser, health: Health, **how: Any) -> Iterator[Page]:
    """The page of a replica, once it has an answer."""
    with served(health) as url, chromium.page(url, **how) as opened:
        opened.until("document.getElementById('updated').textContent")
        yield opened


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def complaints(opened: Page) -> list[str]:
    """What Chromium says, but for the 503 of a probe that fails, which it logs as every page's."""
    return [one for one in opened.complaints() if "status of 503" not in one]


def narrow_enough(opened: Page) -> bool:
    return bool(opened.value("document.documentElement.scrollWidth <= innerWidth"))


def contrast(opened: Page) -> float:
    """The lowest contrast of a text that is shown with what is behind it, as WCAG counts it."""
    return opened.value("""(() => {
      const channel = (value) => { value /= 255; return value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4; };
      const light = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number); return .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b); };
      const behind = (node) => { for (; node; node = node.parentElement) { const colour = getComputedStyle(node).backgroundColor; if (!/, 0\\)$/.test(colour)) return colour; } };
      const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
      while (texts.nextNode()) {
        const node = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !node.checkVisibility() || ["SCRIPT", "NOSCRIPT"].includes(node.tagName)) continue;
        const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
        found.push((Math.max(a, b) + .05) / (Math.min(a, b) + .05));
      }
      return Math.min(...found);
    })()""")


def test_a_start_shows_its_phases_with_percent_rate_and_time_left(chromium: Browser) -> None:
    health = starting()
    with shown(chromium, health) as opened:
        text = plain(opened.text())
        assert re.search(
            r"Starting\s+Loading weights: 43 %\s+1.9 GiB/s · about 3\d min \d+ s left · \d+ s in this phase", text
        )
        assert opened.value("document.querySelector('progress').value") == 43
        steps = opened.value("[...document.querySelectorAll('#phases li')].map((one) => one.innerText.split('\\n')[0])")
        assert steps[0].startswith("✓")
        now = plain(opened.value("document.querySelector('[aria-current=step]').textContent"))
        assert re.search(r"loading weights, now\d+ s of 33 min 20 s", now)
        assert "proving, to come9 s" in plain(opened.value("document.getElementById('phases').textContent"))
        assert opened.value("document.getElementById('announce').textContent") == "Starting. Loading weights"
        health.enter("proving")
        opened.until("document.getElementById('announce').textContent === 'Starting. Proving'")
        assert complaints(opened) == []


def test_a_ready_replica_shows_its_figures_its_last_restart_and_what_to_copy(chromium: Browser) -> None:
    with shown(chromium, ready(below_floor=True)) as opened:
        text = plain(opened.text())
        for figure in (
            "3\n1 waiting",
            "128\ngenerated",
            "840\nms",
            "42\n% used",
            "passed\n2 min",
            "3,200 of prompts",
        ):
            assert figure.replace("\n", "") in text.replace("\n", ""), figure
        cells = (
            "[...document.getElementById('positions').rows].map((row) => [...row.cells].map((one) => one.textContent))"
        )
        assert [[plain(cell) for cell in row if cell] for row in opened.value(cells)] == [
            ["0", "87 %", "95 %", "40 %", "above"],
            ["1", "15 %", "69 %", "20 %", "below"],
            ["all", "51 %", "82 %", "30 %", "above"],
        ]
        assert "Ready, with a warning" in text
        assert "For 1 h 6 min; started 1 h 23 min ago" in text
        assert "The engine died while it served (engine-died, exit status 82)" in text
        assert "RuntimeError: <b>illegal</b> access" in text, "what a log says is text, never markup"
        snippets = []
        for tab in range(3):
            opened.value(f"document.getElementById('tab-{tab}').click()")
            snippets.append(opened.value("document.getElementById('snippet').textContent"))
        assert snippets[0].startswith("curl -s http://127.0.0.1:8100/v1/chat/completions")
        assert '"model":"deepseek-v4-flash"' in snippets[0]
        for snippet in snippets[1:]:
            compile(snippet, "snippet", "exec")
            assert 'model="deepseek-v4-flash"' in snippet
        assert opened.value("document.getElementById('tab-2').getAttribute('aria-selected')") == "true"
        assert complaints(opened) == []


def test_a_replica_that_is_held_back_says_why_and_what_to_do(chromium: Browser) -> None:
    health = Health(
        phase="backoff", backoff_until=time.monotonic() + 3600, starts=4, last_exit=ENDED, key=KEY, plan=PLAN
    )
    with shown(chromium, health) as opened:
        text = plain(opened.text())
        assert re.search(r"Held back\s+The next start begins in (59 min|1 h)", text)
        assert "Why: The engine died while it served (engine-died, exit status 82)" in text
        assert "What to do: Read the root cause line" in text
        assert "Xid" not in text, "the sentence needs the key"


def test_it_survives_the_end_of_the_server_and_finds_the_next_one(chromium: Browser) -> None:
    word = "document.getElementById('word').textContent"
    with contextlib.ExitStack() as first, contextlib.ExitStack() as pages:
        url = first.enter_context(served(ready()))
        opened = pages.enter_context(chromium.page(url))
        opened.until(f"{word} === 'Ready'")
        first.close()
        opened.until(r"/^No answer since \d\d:\d\d:\d\d$/.test(document.getElementById('headline').textContent)")
        assert "It was last seen ready. Asking again every 2 s." in opened.text()
        assert "What to do: Read the end of its log" in opened.text()
        assert opened.value("document.title").startswith("No answer")
        assert contrast(opened) >= 4.5
        with served(starting(), int(url.rstrip("/").rpartition(":")[2])):
            opened.until(f"{word} === 'Starting'")


def test_the_key_is_asked_kept_in_memory_and_sent_in_one_header(chromium: Browser) -> None:
    with shown(chromium, ready(key=KEY)) as opened:
        assert "deepseek-v4-flash" not in opened.text()
        assert not [one for one in opened.requests() if "status" in one["url"]], "nothing is asked without the key"
        for attempt in ("wrong", KEY):
            opened.value("document.getElementById('key').focus()")
            opened.write(attempt)
            opened.press(*ENTER)
            shown_now = (
                "'refused').textContent" if attempt == "wrong" else "'models').textContent === 'deepseek-v4-flash'"
            )
            opened.until(f"document.getElementById({shown_now}")
        assert opened.value("document.getElementById('locked').hidden")
        assert "os.environ" in opened.value(
            "(document.getElementById('tab-1').click(), document.getElementById('snippet').textContent)"
        )
        kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state, document.documentElement.outerHTML, [...document.querySelectorAll('input')].map((one) => one.value)])"
        assert KEY not in opened.value(kept)
        assert opened.value("indexedDB.databases().then((all) => all.length)") == 0
        asked = opened.requests()
        assert {KEY in one["headers"].get("Authorization", "") for one in asked if one["url"].endswith("/status")} == {
            False,
            True,
        }
        assert not [
            one
            for one in asked
            if KEY in one["url"] or ("Authorization" in one["headers"] and not one["url"].endswith("/status"))
        ]
        opened.value("document.getElementById('forget').click()")
        assert "deepseek-v4-flash" not in opened.text()
        opened.call("Page.reload")
        opened.until("document.getElementById('word').textContent")
        assert not opened.value("document.getElementById('locked').hidden")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_is_readable_at_390_pixels_in_light_and_dark(chromium: Browser, dark: bool) -> None:
    states = [ready(last_exit=LastExit("hung", 83, "w" * 200, "x" * 300)), starting(), ready(key=KEY)]
    for health in states:
        with shown(chromium, health, width=390, dark=dark) as opened:
            assert narrow_enough(opened)
            assert contrast(opened) >= 4.5
            ground = opened.value("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", ground))) < 200) is dark


def test_the_keyboard_reaches_everything_in_reading_order(chromium: Browser) -> None:
    with shown(chromium, ready()) as opened:
        reached = []
        for _ in range(8):
            opened.press(*TAB)
            reached.append(opened.value("document.activeElement.id || document.activeElement.textContent"))
            if reached[-1] != "Skip to the state of this replica":
                assert opened.value("getComputedStyle(document.activeElement).outlineStyle") == "solid", (
                    "focus is visible"
                )
        names = ["tab-0", "copy", "snippet", "start-title", "/startupz", "/livez", "/readyz"]
        assert reached == ["Skip to the state of this replica", *names]
        opened.value("document.getElementById('tab-0').focus()")
        opened.press(*RIGHT)
        assert opened.value("document.activeElement.id + document.activeElement.ariaSelected") == "tab-1true"
        opened.value("ask()")  # the page is drawn anew
        assert opened.value("document.activeElement.id") == "tab-1"


def test_a_screen_reader_finds_landmarks_names_and_one_live_region(chromium: Browser) -> None:
    with shown(chromium, ready(key=KEY)) as opened:
        nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
        roles = [(one["role"]["value"], one.get("name", {}).get("value", "")) for one in nodes if not one["ignored"]]
        assert {"banner", "main", "contentinfo", "status"} <= {role for role, _ in roles}
        nameless = [
            role
            for role, name in roles
            if role in ("button", "textbox", "link", "region", "tab", "progressbar") and not name
        ]
        assert nameless == []
        assert opened.value("document.querySelectorAll('[aria-live=polite]').length") == 1
        assert opened.value("document.documentElement.lang") == "en"


def test_without_javascript_it_names_the_plain_texts(chromium: Browser) -> None:
    with served(ready()) as url, chromium.page(url, scripts=False) as opened:
        deadline = time.monotonic() + 10 * slowness()
        while (
            "needs JavaScript" not in str(tree := opened.call("Accessibility.getFullAXTree"))
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        links = [one["name"]["value"] for one in tree["nodes"] if one.get("role", {}).get("value") == "link"]
        assert {"/startupz", "/livez", "/readyz"} <= set(links)


def test_an_injected_script_and_style_do_not_run(chromium: Browser) -> None:
    with shown(chromium, ready()) as opened:
        opened.value(
            "(() => { const one = document.createElement('script'); try { one.text = 'globalThis.ran = 1'; } catch {} document.body.append(one); })()"
        )
        opened.value("fetch('http://127.0.0.1:9/').catch(() => 1)")
        assert not opened.value("globalThis.ran")
        assert any("Content Security Policy" in one for one in opened.complaints())


def test_it_knows_every_phase_and_every_cause() -> None:
    text = page.FILE.read_text()
    assert all(f'"{phase}"' in text for phase in PHASES)
    known = {cause.name for cause in exit_cause.CAUSES} | {"unrecorded"}
    for table in ("TO_DO", "MEANING"):
        (body,) = re.findall(rf"const {table} = \{{(.*?)\n\}};", text, re.DOTALL)
        assert set(re.findall(r'"([a-z-]+)": "', body)) == known
