#!/bin/sh
# commit_line.sh FILE: check that a commit message begins with `area: imperative`; for Git's commit-msg hook.
set -eu
line=$(sed -n 1p "$1")
case $line in "Merge "* | "Revert "* | "fixup! "* | "squash! "*) exit 0 ;; esac
if ! printf '%s\n' "$line" | grep -Eq '^[A-Za-z][A-Za-z0-9_./, -]*: [A-Za-z`"].*[^.]$'; then
    echo >&2 "error: the first line is '$line'; write \`area: imperative\` without a final period, such as 'doctor: report every unreadable shard'."
    exit 1
fi
