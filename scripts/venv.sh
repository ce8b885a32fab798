#!/usr/bin/env bash
# Makes the virtual environment $1 with everything that the lock file $2 names, and this project in it, editable.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 lock=$2

if ! [ -x "$venv/bin/pip" ]; then
    python=$(scripts/find_python.sh)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then # Debian splits venv from Python
        package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
        scripts/debian.sh "=$package"
    fi
    "$python" -m venv "$venv"
fi
# The lock names everything, so pip resolves nothing: left to resolve, it takes the newest release for a package
# that another asks for with an extra, and then misses its hash.
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement "$lock"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
broken=$("$venv/bin/pip" check --disable-pip-version-check) || { echo "$broken" >&2; exit 1; }
