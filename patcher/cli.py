"""
The command `dsv4 patch`, also `python -m dsv4_serve.patcher`.

Exit status: 0 success · 1 failure: drifted, not applicable, not verified, lint findings, a conflict or a lost name on
another vLLM; nothing was written · 64 invalid command line · 65 malformed series or patch · 78 unusable tree: wrong
version, symbolic link, not writable, interrupted · 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from .apply import exchange, locked, plan, recover
from .errors import PatcherError, PatcherUsageError, TreeError
from .export import export
from .lint import lint
from .names import compare
from .port import before_and_after, try_patches
from .report import report, verify
from .series import Series, directory_of, locate, newest, read_series
from .tree import Tree, open_tree, require_match, require_whole, states


def main(argv: list[str]) -> int:
    """Run one command line and return its exit status."""
    parser = _Parser(prog="dsv4 patch", description="Apply the patch series to exactly the vLLM it was made for.")
    add_commands(parser)
    try:
        return run(parser.parse_args(argv))
    except PatcherError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader is gone, as in `... | head`
        return 0
    except OSError as error:
        print(f"error: cannot write: {error.strerror}", file=sys.stderr)
        return TreeError.exit_status


def run(arguments: argparse.Namespace) -> int:
    """Run the parsed command and return its exit status; errors go to stderr as one or two sentences."""
    try:
        arguments.series = arguments.series or newest()
        status: int = arguments.perform(arguments)
        sys.stdout.flush()
        return status
    except PatcherError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        if error.filename is None:  # standard output, which the caller answers for, or a full disk
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return TreeError.exit_status
    except KeyboardInterrupt:
        return 130


def _status(arguments: argparse.Namespace) -> int:
    tree, series = _open(arguments)
    print(f"{tree.distribution} {tree.version} at {tree.root}; series {series.name} ({_size(series)})")
    return int(_list_states(tree, series) > 0)


def _apply(arguments: argparse.Namespace) -> int:
    if arguments.check:
        return _check(*_open(arguments))
    tree, series = _open(arguments, interrupted=True)
    with locked(tree):
        recovered = recover(tree)
        if recovered:
            print(f"an interrupted apply was {recovered}")
        pending = [s.patch for s in states(tree, series) if s.verdict == "pending"]
        exchange(tree, plan(tree, series))
    for patch in pending:
        edits = ", ".join(f"{d.path} {d.pre[:7]} -> {d.post[:7]}" for d in patch.diffs)
        print(f"applied {patch.name:{_width(series)}} {edits}")
    print(f"applied now: {len(pending)}, applied before: {len(series.patches) - len(pending)}")
    return 0


def _check(tree: Tree, series: Series) -> int:
    drifted = _list_states(tree, series)
    if drifted:
        print(f"{drifted} of {len(series.patches)} patches would not apply; nothing was written")
        return 1
    print(f"files to write: {len(plan(tree, series))}")
    return 0


def _list_states(tree: Tree, series: Series) -> int:
    each = states(tree, series)
    width = _width(series)
    for s in each:
        upstream, drop = (s.patch.trailers[key].value for key in ("Upstream-Status", "Drop-When"))
        print(f"{s.verdict:8} {s.patch.name:{width}} {upstream.split()[0]:13} {s.detail or f'drop: {drop}'}")
    return sum(s.verdict == "drifted" for s in each)


def _verify(arguments: argparse.Namespace) -> int:
    tree, series = _open(arguments)
    problems = verify(tree, series)
    for problem in problems:
        print(problem)
    done = f"verified ({_size(series)}): bytes match the series, modules compile, no leftovers"
    print("not verified" if problems else done)
    return int(bool(problems))


def _lint(arguments: argparse.Namespace) -> int:
    findings, notes = lint(locate(arguments.series))
    for line in [*findings, *notes]:
        print(line)
    print(f"findings: {len(findings)}")
    return int(bool(findings))


def _report(arguments: argparse.Namespace) -> int:
    text = json.dumps(report(*_open(arguments)), indent=2) + "\n"
    if arguments.out:
        arguments.out.write_text(text, "utf-8")
    else:
        print(text, end="")
    return 0


def _port(arguments: argparse.Namespace) -> int:
    series = read_series(locate(arguments.series))
    base, target = open_tree(arguments.base), open_tree(arguments.tree)
    require_match(base, series)
    files = before_and_after(base, series)
    print(
        f"series {series.name}, made for {base.distribution} {base.version}, tried on {target.version} at {target.root}"
    )
    outcomes = list(try_patches(series, files[0], target))
    for outcome in outcomes:
        notes = outcome.details or (("" if outcome.exact else "the text fits; export it again for the new ids"),)
        for number, note in enumerate(notes):
            head = (outcome.verdict, outcome.patch.name) if not number else ("", "")
            print(f"{head[0]:8} {head[1]:{_width(series)}} {note}".rstrip())
    looked_up, found = compare(series, base, files, target, Path(__file__).resolve().parents[1])
    for one in found:
        print(f"{one.kind:8} {one.what}")
        print(f"         used by {', '.join(one.users)}")
    count = {v: sum(o.verdict == v for o in outcomes) for v in ("applies", "conflict", "upstream")}
    gone = sum(one.kind == "gone" for one in found)
    print(f"patches: applies {count['applies']}, conflict {count['conflict']}, upstream {count['upstream']}")
    print(f"names: looked up {looked_up}, gone {gone}, changed {len(found) - gone}")
    if count["conflict"]:
        print(
            "Mend a conflict by reading both versions: `patch -F3` may put a hunk into a docstring and call it success."
        )
    return int(count["applies"] < len(outcomes) or bool(found))


def _export(arguments: argparse.Namespace) -> int:
    directory = directory_of(arguments.series)
    for action, name in export(arguments.repository, arguments.base, directory):
        print(f"{action:9} {name}")
    return _lint(arguments)


def _open(arguments: argparse.Namespace, interrupted: bool = False) -> tuple[Tree, Series]:
    series = read_series(locate(arguments.series))
    tree = open_tree(arguments.tree)
    require_match(tree, series)
    if not interrupted:
        require_whole(tree)
    return tree, series


def _width(series: Series) -> int:
    return max((len(p.name) for p in series.patches), default=0)


def _size(series: Series) -> str:
    return f"patches: {len(series.patches)}, files: {len(series.chains)}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise PatcherUsageError(f"{message}. {' '.join(self.format_usage().split())}")


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the commands to a parser, whose options `run` takes."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    series = argparse.ArgumentParser(add_help=False)
    series.add_argument(
        "--series", metavar="NAME", help="name or path of the series (default: that of the newest vLLM)"
    )
    tree = argparse.ArgumentParser(add_help=False, parents=[series])
    tree.add_argument(
        "--tree", type=Path, metavar="DIR", help="folder that contains vllm/ (default: the installed one)"
    )
    for name, perform, parent, text in (
        ("status", _status, tree, "show the state of each patch: pending, applied or drifted"),
        ("apply", _apply, tree, "apply all pending patches, or none"),
        ("verify", _verify, tree, "prove that the tree holds the whole series and compiles"),
        ("report", _report, tree, "print version, patches, hashes and states as JSON"),
        ("port", _port, tree, "try the series and the names that it uses on another vLLM; writes nothing"),
        ("lint", _lint, series, "check trailers, order and completeness of the series"),
        ("export", _export, series, "write the series from the commits of a git clone of the unpacked tree"),
    ):
        about = f"{text[0].upper()}{text[1:]}."
        commands.add_parser(name, parents=[parent], help=text, description=about).set_defaults(perform=perform)
    commands.choices["apply"].add_argument(
        "--check", action="store_true", help="show what would be done, and write nothing"
    )
    commands.choices["report"].add_argument("--out", type=Path, metavar="FILE", help="write to FILE (default: stdout)")
    port = commands.choices["port"]
    port.add_argument(
        "--base", type=Path, metavar="DIR", help="the vLLM that the series is made for (default: the installed one)"
    )
    export = commands.choices["export"]
    export.add_argument(
        "--from", dest="repository", type=Path, metavar="GITDIR", required=True, help="git clone that holds the commits"
    )
    export.add_argument("--base", metavar="REV", required=True, help="commit of the unpatched tree")
