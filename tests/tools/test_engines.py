"""docs/results/engines.md is made from engines.toml and its results; what does not fit between them is named in a sentence."""

from __future__ import annotations

import functools
import itertools
import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools import kernel_time
from tools.engines import __main__ as command
from tools.engines import kernels, sessions, stalls, tables
from tools.engines.result import At, Result
from tools.engines.sessions import Comparison

ROOT = Path(__file__).resolve().parents[2]
OURS, THEIRS = (
    f"flash-h200-tp2-{name}-20261130T124231Z.json" for name in ("64k-dummy-ours-mtp-fp8", "sglang-dummy-sglang-mtp")
)
TITLE = "2026-11-30, 12:38 UTC"
NEWER = "2026-12-01, 02:00 UTC"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of the list, of the results that it names, and of the page, which the command takes for the real ones."""
    shutil.copy(sessions.LIST, tmp_path)
    shutil.copy(command.PAGE, tmp_path)
    bench = tmp_path / "bench"
    bench.mkdir()
    for one in sessions.read():
        for side in (one.ours, one.theirs):
            shutil.copy(side.result.path, bench)
    read = sessions.read
    monkeypatch.setattr(sessions, "read", lambda: read(tmp_path / "engines.toml", bench))
    monkeypatch.setattr(command, "PAGE", tmp_path / "engines.md")
    return tmp_path


def change(house: Path, name: str, how: Change, new: str = "") -> None:
    """Change a result, or write it under another name."""
    body = json.loads((house / "bench" / name).read_text(encoding="utf-8"))
    how(body)
    (house / "bench" / (new or name)).write_text(json.dumps(body), encoding="utf-8")


def replace(house: Path, old: str, new: str, file: str = "engines.toml") -> None:
    text = (house / file).read_text(encoding="utf-8")
    assert old in text
    (house / file).write_text(text.replace(old, new, 1), encoding="utf-8")


def of(title: str) -> Comparison:
    return next(one for one in sessions.read() if one.session.title == title)


def pair(title: str = TITLE, more: str = "") -> str:
    return f'[[session]]\ntitle = "{title}"\nhost = "a host"\n[[session.pair]]\n{more}\n'


def only(house: Path, *entries: str) -> list[Comparison]:
    (house / "engines.toml").write_text("".join(entries), encoding="utf-8")
    return sessions.read()


NAMED = f'ours = "{OURS}"\ntheirs = "{THEIRS}"\n'
LEFT = 'steps.theirs = { 1 = "no", 16 = "no" }\n'
STEPS = LEFT + "steps.ours = { 1 = 20, 16 = 20 }\n"


# The page


def test_the_page_is_what_the_list_and_the_results_say(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = command.PAGE.read_text(encoding="utf-8")
    assert command.main() == 0
    assert command.PAGE.read_text(encoding="utf-8") == before, "run `python -m tools.engines`"
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("engines.toml", "input = 256, batch = 64", "input = 256, batch = 16"),
        ("engines.toml", "16 = 20", "16 = 10"),
        ("engines.toml", "a host", "another host"),
        (f"bench/{OURS}", '"output_tokens_per_second": 190.73', '"output_tokens_per_second": 199.73'),
        (f"bench/{THEIRS}", '"ttft_p50": 323', '"ttft_p50": 423'),
        (f"bench/{OURS}", '"ms": 291.31', '"ms": 292.31'),
        ("engines.md", "| **1.14** |", "| **1.41** |"),
        ("engines.md", "| 14.57 |", "| 14.75 |"),
    ],
)
def test_what_changes_in_one_of_them_changes_the_page(house: Path, file: str, old: str, new: str) -> None:
    only(house, pair(TITLE, NAMED + STEPS + "marked = [{ input = 256, batch = 64, why = 'a stall' }]\n"))
    assert command.main() == 0
    made = command.PAGE.read_text(encoding="utf-8")
    replace(house, old, new, file)
    before = command.PAGE.read_text(encoding="utf-8")
    assert command.main() == 0
    after = command.PAGE.read_text(encoding="utf-8")
    assert after != before
    assert (after == made) == (file == "engines.md")


def test_every_result_of_sglang_is_in_the_list() -> None:
    listed = {side.result.name for one in sessions.read() for side in (one.ours, one.theirs)}
    assert {path.name for path in sessions.FOLDER.glob("*-sglang-dummy-sglang-*.json")} <= listed


def test_the_rows_are_those_that_the_program_measures() -> None:
    asked = tomllib.loads((ROOT / "qualification/gpu/sglang.toml").read_text(encoding="utf-8"))
    also = [At(*at) for one in asked["also"] for at in itertools.product(one["inputs"], one["batches"])]
    assert {*tables.ROWS} == {*also} | {At(256, batch) for batch in asked["batches"]}


def test_every_family_of_kernels_has_a_row() -> None:
    shown = {part for parts in (kernels.TOGETHER | kernels.REST).values() for part in parts}
    assert shown == {name for name, _ in kernel_time.FAMILIES} | {"other", "idle", "span"}


def test_the_text_says_how_rows_were_measured() -> None:
    for side in itertools.chain.from_iterable((one.ours, one.theirs) for one in sessions.read()):
        assert {at: row["requests"] for at, row in side.result.rows.items()} == {
            at: at.batch * (1 if at.input == 16000 else 2) for at in side.result.rows
        }
        variables = side.result.body["variant"]["env"] | side.result.body["replica"].get("env", {})
        assert "VLLM_DEEP_GEMM_WARMUP" in variables or variables["SGLANG_JIT_DEEPGEMM_PRECOMPILE"] == "0"
        configured = "profiler-config.profiler" in side.result.body["replica"].get("settings", {})
        assert configured or side.result.engine != "dsv4" or not side.result.traces


def test_the_ratio_whose_tokens_a_step_were_high_by_chance_stays_above_1() -> None:
    one = next(one for one in sessions.read() if one.ours.result.name.endswith("ours-dspark-20261130T230118Z.json"))
    ours, theirs, at = one.ours.result, one.theirs.result, At(16000, 1)
    had = ours.tokens(at) or 0
    assert had == max(ours.tokens(each) or 0 for each in ours.rows)
    row = ours.rows[at]
    seconds = (row["ttft_p50"] + 255 * row["tpot_p50"] * had / theirs.body["tokens_a_step"]) / 1000
    assert 256 / seconds > theirs.rows[at]["output_tokens_per_second"]


def test_notes_and_reasons_of_the_list_have_no_measured_figures() -> None:
    found = [one for one in sessions.read() for one in (*one.session.notes, *one.pair.notes, *one.marks.values())]
    assert [text for text in found if re.search(r"\d (?:ms|s|%|times)\b|\d\.\d", text)] == []


def test_the_answer_at_the_top_is_what_the_newest_rows_say() -> None:
    def missed(one: Comparison) -> list[At]:
        return [at for at, ratio in counted(one).items() if ratio < 1]

    def counted(one: Comparison) -> dict[At, float]:
        return tables.ratios(one.ours.result, one.theirs.result, (at for at in one.both if at not in one.marks))

    mtp, dspark = tables.newest(sessions.read())
    assert (mtp.kind[:3], dspark.kind[:6]) == ("MTP", "DSpark")
    assert mtp.both == [At(256, 1), At(256, 4)]
    assert len(counted(mtp)) + len(counted(dspark)) == 8
    assert (missed(mtp), missed(dspark)) == ([], [At(16000, 16)])
    assert missed(of(TITLE)) == [At(1024, 64), At(16000, 4), At(16000, 16), At(16000, 64)]
    experts = [one.ours.result.experts for one in (mtp, dspark, of(TITLE))]
    assert [" no " in each for each in experts] == [False, False, True]
    page = " ".join(command.PAGE.read_text(encoding="utf-8").split())
    assert "is ahead in seven of the eight rows that count, and behind at 16,000 × 16 with DSpark. With MTP," in page
    assert "unmeasured above four requests and for prompts of more than 256 tokens." in page
    assert "was behind at 1,024 × 64 and, with four requests or more, at 16,000 tokens." in page


def test_of_a_marked_row_only_the_medians_have_ratios() -> None:
    cells = list(tables._cells(At(256, 64), of(TITLE)))
    assert (cells[1], cells[4]) == (r"64 \*", "")
    assert all(cells[at] for at in (7, 10))


def test_kernels_of_two_sessions_say_what_differs() -> None:
    made = tables.tables(sessions.read())["kernels"]
    older = "ours is of an older one, without measured kernels and with `uniform_random`, a dearer routing, so"
    assert f"**The columns are of two sessions: {older} the difference is not today's.**" in made


def test_what_may_be_chance_is_the_span_of_the_repeats() -> None:
    made = tables.tables(sessions.read())["repeats"]
    spans = [re.findall(r"\d\.\d\d", row.split(" | ")[2]) for row in made.splitlines()[2:5]]
    low, high = min(one[0] for one in spans), max(one[-1] for one in spans)
    assert f"Ratios between {low} and {high} of tok/s" in made


# What it says


def test_the_summary_counts_rows_and_leaves_marked_ones_out() -> None:
    cells = list(tables._summed(of(TITLE)))
    assert cells[3:9] == [
        "11",
        "7 (1.02 to 1.24)",
        "1,024 × 64: 0.88; 16,000 × 4: 0.99; 16,000 × 16: 0.86; 16,000 × 64: 0.82",
        "0.99 to 1.31",
        "256 × 64 (0.63; all streams of ours stalled)",
        "",
    ]


def test_as_many_tokens_a_second_reach_the_goal(house: Path) -> None:
    change(house, THEIRS, lambda body: body["variant"].update(engine="dsv4"), "same.json")
    change(house, "same.json", lambda body: body["replica"].update(Result.read(house / "bench" / OURS).body["replica"]))
    left = STEPS.replace("20", '"no"')
    [one] = only(house, pair(TITLE, f'ours = "same.json"\ntheirs = "{THEIRS}"\n{left}'))
    assert list(tables._summed(one))[3:6] == ["12", "12 (1.00)", "none"]


@pytest.mark.parametrize(("calls", "fits"), [((40, 60, 7), True), ((40, 7, 7), False), ((40, 7), False)])
def test_most_kernels_run_a_multiple_of_the_steps_times(calls: tuple[int, ...], fits: bool) -> None:
    families = [{"name": "x", "longest": f"50% {count} x kernel"} for count in calls] + [
        {"name": "idle", "longest": ""}
    ]
    assert Result(Path("x.json"), {"kernels": {"1": families}}).fits("1", 20) is fits


def test_a_reason_goes_on_after_a_colon() -> None:
    assert [tables.lowered(text) for text in ("Ours stalled.", "SGLang stalled.")] == [
        "ours stalled.",
        "SGLang stalled.",
    ]


def test_a_ratio_below_1_is_not_shown_as_1() -> None:
    assert [tables.shown(ratio) for ratio in (1.0, 0.996, 0.994, 1.004)] == ["1.00", "0.996", "0.99", "1.00"]


def test_the_newest_of_each_kind_is_shown_in_the_order_of_the_list() -> None:
    found = sessions.read()
    kinds = list(dict.fromkeys(one.kind for one in found))
    shown = tables.newest(found)
    assert [one.kind for one in shown] == kinds
    assert all(one is next(each for each in found if each.kind == one.kind) for one in shown)


def test_a_row_has_the_figures_of_both_and_their_ratios() -> None:
    assert list(tables._cells(At(256, 1), of(TITLE))) == [
        "256", "1", "166.6", "190.7", "**1.14**", "4.76", "4.95", "1.04", "323", "79", "0.25",
    ]  # fmt: skip


def test_tokens_of_a_step_and_of_prompts_are_computed_from_the_rows() -> None:
    one = of(TITLE)
    assert one.ours.result.tokens_a_step() == "1.88 (1.88 to 1.95)"
    assert one.theirs.result.tokens_a_step() == "1.892"
    rates = [round(side.result.reading() or 0, -1) for side in (one.theirs, one.ours)]
    assert rates == [28880, 22450]


def test_kernels_are_those_of_a_step_or_of_a_whole_prompt(house: Path) -> None:
    change(house, OURS, lambda body: body["kernels"].update({"prompt 16000": body["kernels"]["16"]}))
    steps = 'steps.ours = { 1 = "no", 16 = 20, "prompt 16000" = 4 }\n'
    [text] = kernels.sections(only(house, pair(TITLE, NAMED + LEFT + steps)))
    assert text.count("SGLang: no trace; ours: 2026-11-30, 12:38 UTC, FP8 inputs, no measured kernels, 20 steps") == 1
    assert "| a step of 16 requests, ms | ours |" in text
    assert "| experts: GEMMs, routing, sums | 14.57 |" in text  # 291.31 / 20
    assert "| a prompt of 16,000 tokens, ms | ours |" in text
    assert "four steps" in text
    assert "| experts: GEMMs, routing, sums | 291.3 |" in text


def test_kernels_of_both_engines_have_a_difference_and_a_sum(house: Path) -> None:
    [text] = kernels.sections(
        only(house, pair(TITLE, NAMED + 'steps.ours = { 1 = 20, 16 = 20 }\nsteps.theirs = { 1 = 4, 16 = "no" }'))
    )
    single = text[text.index("| a step of 1 request, ms | SGLang | ours | ours - SGLang |") :].partition("\n\n")[0]
    cells = {row[1]: row[2:5] for row in (re.split(r" ?\| ?", line) for line in single.splitlines()[2:])}
    assert cells["experts: GEMMs, routing, sums"] == ["5.98", "2.38", "-3.61"]  # 23.934 / 4, 47.527 / 20
    times = [[float(value) for value in row] for row in cells.values()]
    for column in range(3):
        assert sum(row[column] for row in times[:7]) == pytest.approx(times[7][column], abs=0.04)


def test_a_family_that_no_row_shows_is_named(house: Path) -> None:
    change(house, OURS, lambda body: body["kernels"]["16"].append({"name": "new", "ms": 1.0, "longest": ""}))
    with pytest.raises(ValueError, match=r"no row of tools/engines/kernels.py has new"):
        list(kernels.sections(only(house, pair(TITLE, NAMED + STEPS))))


# Sessions to come


def share(body: dict[str, Any]) -> None:
    body["variant"].update(share=2, tp=1)
    body["weights"] += ", one GPU's share of 2"
    body["replica"].get("machine", {}).get("gpus", [1, 2]).pop()


def test_a_session_of_one_gpus_share_is_a_kind_of_its_own(house: Path) -> None:
    for name, new in ((OURS, "ours.json"), (THEIRS, "theirs.json")):
        change(house, name, share, new)
        change(house, new, later)
    found = only(house, pair(NEWER, 'ours = "ours.json"\ntheirs = "theirs.json"\n' + STEPS), pair(TITLE, NAMED + STEPS))
    kinds = ["MTP, one draft token, one GPU's share of two", "MTP, one draft token, two GPUs"]
    assert [one.kind for one in tables.newest(found)] == kinds
    made = tables.tables(found)
    assert f"### {kinds[0]}\n\n{NEWER}, 1 x NVIDIA H200, one GPU's share of two, driver" in made["rows"]
    assert all(f"### Kernels: {kind}\n" in made["kernels"] for kind in kinds)
    assert "| GPUs | 1 x NVIDIA H200, one GPU's share of two; 2 x NVIDIA H200, TP=2 |" in made["conditions"]
    assert len(made["repeats"].splitlines()) == 2


def test_a_newer_session_takes_the_place_of_an_older_one(house: Path) -> None:
    for name, new in ((OURS, "ours.json"), (THEIRS, "theirs.json")):
        change(house, name, later, new)
    found = only(house, pair(NEWER, 'ours = "ours.json"\ntheirs = "theirs.json"\n' + STEPS), pair(TITLE, NAMED + STEPS))
    made = tables.tables(found)
    assert made["rows"].count("###") == 1
    assert f"### MTP, one draft token, two GPUs\n\n{NEWER}, 2 x NVIDIA H200, TP=2, driver" in made["rows"]
    assert [line.split(" | ")[0] for line in made["summary"].splitlines()[2:]] == [f"| {NEWER}", f"| {TITLE}"]
    assert "| dates | 2026-11-30 to 2026-12-01 |" in made["conditions"]
    assert f"{NEWER} / {TITLE} | 12 | 1.00 | 1.00 | 1.00 |" in made["repeats"]


def test_a_pair_of_two_sessions_says_so(house: Path) -> None:
    change(house, THEIRS, later, "theirs.json")
    mixed = f'ours = "{OURS}"\ntheirs = "theirs.json"\nours_session = "{TITLE}"\n'
    made = tables.tables(only(house, pair(NEWER, mixed + STEPS), pair(TITLE, NAMED + STEPS)))
    assert f"| {NEWER}; ours of {TITLE} |" in made["summary"]
    assert f"**ours is of another session, {TITLE}**, so a ratio near 1 says little." in made["rows"]


def later(body: dict[str, Any]) -> None:
    body["date"] = "2026-12-01T02:00:00+00:00"


# What does not fit

UNFIT = {
    "a file that is not there": ("", 'ours = "none.json"\ntheirs = "none.json"\n', r"none.json is not in bench/: copy"),
    "a key that is not known": ("", NAMED + 'our = "x"\n', rf"`session` '{TITLE}', `pair` 1, `our` is not a key that is known here."),
    "a key that is missing": ("", f'ours = "{OURS}"\n', r"`pair` 1, `theirs` is missing."),
    "no steps": ("", NAMED, r"has a trace of '1': put its steps under `steps.ours`, or why it is left out."),
    "steps of no trace": ("", NAMED + LEFT + "steps.ours = { 1 = 20, 16 = 20, 64 = 20 }\n", r"has no trace of '64'"),
    "steps that cannot be": ("", NAMED + LEFT + "steps.ours = { 1 = 20, 16 = 21 }\n", r"'16' .* cannot be of 21 steps"),
    "no number of steps": ("", NAMED + LEFT + "steps.ours = { 1 = 20, 16 = 0 }\n", r"`pair` 1, `steps`, `ours`, `16`: .*greater"),
    "a row that is not there": (
        "", NAMED + STEPS + "marked = [{ input = 512, batch = 4, why = 'x' }]\n",
        r"no row has 512 tokens in and 4 requests; it is marked.",
    ),
    "the other engine": ("", f'ours = "{THEIRS}"\ntheirs = "{OURS}"\n', r"has to be of dsv4 and `theirs` of sglang"),
    "a session that is not there": ("", NAMED + 'theirs_session = "x"\n', r"no session has the title 'x'"),
    "a row that is marked twice": (
        "", NAMED + STEPS + "marked = [{ input = 256, batch = 4, why = 'x' }, { input = 256, batch = 4, why = 'y' }]\n",
        r"a row is marked twice",
    ),
    "a pair that is there twice": ("", f"{NAMED}{STEPS}[[session.pair]]\n{NAMED}{STEPS}", r"the pair of .* is there twice"),
    "a note that would end the table": ("", 'notes = ["<!-- end -->"]\n' + NAMED, r"`notes` 1: `<!--` would end"),
    "a blank reason": ("", NAMED + STEPS + "marked = [{ input = 256, batch = 4, why = ' ' }]\n", r"`marked` 1, `why`: .*least 1"),
    "no TOML": ("", "ours = \n", r"^engines.toml: "),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_one_sentence(house: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = command.PAGE.read_text(encoding="utf-8")
    _, entry, sentence = UNFIT[case]
    (house / "engines.toml").write_text(pair(more=entry), encoding="utf-8")
    assert command.main() == 1
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert err.startswith("engines.toml: ")
    assert re.search(sentence, err), err
    assert command.PAGE.read_text(encoding="utf-8") == before


def without_rows(body: dict[str, Any]) -> None:
    body["rows"] = [{**row, "input": row["input"] + 1} for row in body["rows"]]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (share, "they were not served alike: two GPUs, dummy weights, acceptance 0.89; one GPU's share of two"),
        (lambda body: body.update(weights="dummy weights, synthetic acceptance 0.5"), "not served alike"),
        (lambda body: body.update(date="2026-11-30T17:00:00+00:00"), "name the session of the older one"),
        (without_rows, "they have no row in common"),
        (lambda body: body["rows"].append(body["rows"][0]), "has a row twice"),
        (lambda body: body.pop("rows"), f"{THEIRS}: `rows` is missing."),
    ],
)
def test_results_that_do_not_fit_are_named(house: Path, how: Change, sentence: str) -> None:
    change(house, THEIRS, how)
    with pytest.raises(ValueError, match=f"^engines.toml: .*{re.escape(sentence)}"):
        only(house, pair(TITLE, NAMED + STEPS))


def row(**figures: object) -> Change:
    return lambda body: body["rows"][2].update(figures)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (row(ttft_p99=0), "`rows` 3, `ttft_p99`: input should be greater than 0."),
        (row(tpot_p50=None), "`rows` 3, `tpot_p50`: input should be a valid number."),
        (row(input="256"), "`rows` 3, `input`: input should be a valid integer."),
        (lambda body: body["rows"][2].pop("drafted"), "`rows` 3, `drafted` is missing."),
        (lambda body: body.update(replica=None), "`replica` has to be a table of keys and values"),
        (lambda body: body.update(kernels=None), "`kernels`: input should be a valid dictionary."),
        (lambda body: body["variant"].pop("flags"), "`variant`, `flags` is missing."),
        (lambda body: body["kernels"]["16"][1].pop("longest"), "`kernels`, `16` 2, `longest` is missing."),
        (lambda body: body.update(date="2026-11-30T12:38:24"), "`date`: a date with its zone is needed"),
        (row(requests=9), "requests differs"),
        (row(output=9), "output differs"),
        (lambda body: body.update(weights=body["weights"].replace("dummy", "real")), "not served alike"),
    ],
)
def test_a_bad_result_is_named_in_a_sentence(
    house: Path, how: Change, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (house / "engines.toml").write_text(pair(TITLE, NAMED + STEPS), encoding="utf-8")
    change(house, OURS, how)
    assert command.main() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert OURS in line
    assert sentence in line


def with_machine(machine: dict[str, Any], body: dict[str, Any]) -> None:
    body["replica"]["machine"] = machine


def test_results_of_different_gpus_are_refused(house: Path) -> None:
    for name, card in ((OURS, "NVIDIA B300"), (THEIRS, "NVIDIA H200")):
        machine = {"gpus": [{"name": card}] * 2}
        change(house, name, functools.partial(with_machine, machine))
    with pytest.raises(ValueError, match="they have different GPUs: NVIDIA B300; NVIDIA H200"):
        only(house, pair(TITLE, NAMED + STEPS))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_file_that_is_no_result_is_named(house: Path, content: bytes) -> None:
    (house / "bench" / OURS).write_bytes(content)
    with pytest.raises(ValueError, match=f"^engines.toml: {OURS}(: it has to be a table| is not JSON)"):
        only(house, pair(TITLE, NAMED + STEPS))


@pytest.mark.parametrize("title", ["2026-11-30, 12:42 UTC", "new"])
def test_a_title_is_the_minute_of_the_earliest_date(house: Path, title: str) -> None:
    with pytest.raises(ValueError, match=f"the session '{title}' has the title '{TITLE}' by the earliest date"):
        only(house, pair(title, NAMED + STEPS))


def test_a_page_that_cannot_be_written_stays_as_it_was(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = command.PAGE.read_text(encoding="utf-8")
    only(house, pair(TITLE, NAMED + STEPS))

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    assert command.main() == 1
    assert capsys.readouterr().err == "no space left\n"
    assert command.PAGE.read_text(encoding="utf-8") == before
    assert not list(house.glob("*.new"))


def test_fewer_tokens_a_second_than_the_medians_imply_look_like_a_stall(house: Path) -> None:
    change(house, OURS, row(output_tokens_per_second=9))
    found = only(house, pair(TITLE, NAMED + STEPS + "marked = [{ input = 256, batch = 64, why = 'x' }]\n"))
    [line] = stalls.stalls(found)
    assert "9 tokens a second" in line


def test_sessions_are_in_order_and_have_titles_of_their_own(house: Path) -> None:
    with pytest.raises(ValueError, match=f"two sessions have the title '{TITLE}'"):
        only(house, pair(more=NAMED + STEPS), pair(more=NAMED + STEPS))
    for name, new in ((OURS, "ours.json"), (THEIRS, "theirs.json")):
        change(house, name, later, new)
    newer = pair(NEWER, 'ours = "ours.json"\ntheirs = "theirs.json"\n' + STEPS)
    assert len(only(house, newer, pair(more=NAMED + STEPS))) == 2
    with pytest.raises(ValueError, match=f"the session '{NEWER}' is newer than '{TITLE}'"):
        only(house, pair(more=NAMED + STEPS), newer)


def test_a_row_that_looks_like_a_stall_is_printed_and_not_marked(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only(house, pair(TITLE, NAMED + STEPS))
    assert command.main() == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"a stall? {OURS}: 256 tokens in and 64 requests: TTFT 564 ms at p50, 6,004 at p99"
    only(house, pair(TITLE, NAMED + STEPS + "marked = [{ input = 256, batch = 64, why = 'it stalled' }]\n"))
    assert command.main() == 0
    assert not capsys.readouterr().err


def test_a_result_without_a_machine_or_a_version_is_shown_as_unknown(house: Path) -> None:
    change(house, THEIRS, lambda body: body["replica"].clear())
    assert Result.read(house / "bench" / THEIRS).version == "SGLang of an unknown version"
