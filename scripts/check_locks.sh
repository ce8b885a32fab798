#!/usr/bin/env bash
# Whether each lock file that a user installs can be installed, from wheels with its hashes alone, on every Python
# that is supported. It asks the package index, and installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
pip=${1:?usage: check_locks.sh PIP}
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT

for version in 3.11 3.12 3.13 3.14; do
    for lock in requirements.lock requirements-extras.lock requirements-dev.lock; do
        "$pip" install --quiet --disable-pip-version-check --dry-run --ignore-installed --no-deps --require-hashes \
            --only-binary=:all: --python-version "$version" --implementation cp --target "$target" --requirement "$lock"
        echo "$lock: Python $version"
    done
done
