#!/bin/sh
# bytecode.sh ARGUMENT...: compile Python files so that the bytes are the same in every build; the arguments are compileall's.
# `unchecked-hash`: file times are neither written nor compared. -f: also recompile what Python cached by time while it ran pip.
# One process: marshal's output depends on what the process compiled before. The fixed hash seed orders sets.
set -eu
PYTHONHASHSEED=0 exec /opt/dsv4/bin/python -W ignore -m compileall -f -qq --invalidation-mode unchecked-hash "$@"
