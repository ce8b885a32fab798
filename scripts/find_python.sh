#!/usr/bin/env bash
# Prints the path of a Python that can run the agent: 3.11 by name first, else any python3 or python that is newer.
set -euo pipefail

for name in ${PYTHON:-} python3.11 python3 python python3.12 python3.13; do
    # The interpreter names itself: a launcher in between may not exist in another folder.
    found=$("$name" -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1); print(sys.executable)' 2>/dev/null) || continue
    echo "$found"
    exit 0
done
echo "No Python 3.11 or newer found. Install one (Debian 12: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.11" >&2
exit 1
