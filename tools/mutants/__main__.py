"""
Give each module its score: the share of its mutants that its unit tests notice.

    python -m tools.mutants [WORD...]    the modules whose path holds one of the words, else all
    --jobs N                             trials at once
    --write HARDWARE DATE                keep the scores in tools/mutants/scores.json, and write the page
    --page                               only write the page
"""

from __future__ import annotations

import argparse
import sys
import time

from tools.mutants import Score, Table, Target, read_table, results, trial
from tools.mutants.mutations import mutants


def main() -> int:
    """Return 1 when a module is below the least score."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", nargs=2, metavar=("HARDWARE", "DATE"))
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    table = read_table()
    if options.page:
        results.write_page()
        return 0
    selected = [one for one in table.targets if not options.words or any(word in one.file for word in options.words)]
    scores = [score(target, table, options.jobs) for target in selected]
    low = [one for one in scores if one.share < table.least]
    print(f"{len(low)} of {len(scores)} modules are below {table.least:.0%}")
    if options.write:
        results.keep(scores, *options.write)
        results.write_page()
    return 1 if low else 0


def score(target: Target, table: Table, jobs: int) -> Score:
    """Try every mutant of a module, and print its survivors as they are found, and its score."""
    began = time.monotonic()
    every = mutants(target.file, table)
    changing = [mutant for mutant in every if table.counts(mutant)]
    left = [str(mutant) for mutant in trial.survivors(target, changing, jobs)]
    took = round(time.monotonic() - began)
    found = Score(target.file, len(changing), len(changing) - len(left), len(every) - len(changing), took, tuple(left))
    print(f"{found.share:6.1%} {target.file}: {found.killed} of {found.mutants} mutants noticed, {took} s", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
