#!/bin/sh
# bytecode.sh ARGUMENT...: compile Python files so that the bytes are the same in every build; the arguments are compileall's.
# `unchecked-hash`: no time of a file is written, and none is compared. -f: also what Python has cached by time while it ran pip.
# One process: what marshal writes depends on what the process has met before. The fixed hash seed orders sets.
set -eu
PYTHONHASHSEED=0 exec /opt/dsv4/bin/python -W ignore -m compileall -f -qq --invalidation-mode unchecked-hash "$@"
