#!/usr/bin/env bash
# Resolves pyproject.toml into the lock files, with hashes, for Python 3.11 and newer on every platform.
# requirements.lock runs the agent, requirements-extras.lock adds every optional part, and
# requirements-dev.lock what its tests and checks need; all hold the build backend, so that an install from them asks the network for nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=${1:?usage: lock.sh FOLDER_FOR_UV [--upgrade]}
shift
[ -x "$tools/bin/uv" ] || { "$(scripts/find_python.sh)" -m venv "$tools" && "$tools/bin/pip" install --quiet 'uv>=0.9,<1'; }

compile() {
    echo 'setuptools>=77' | "$tools/bin/uv" pip compile pyproject.toml - --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --quiet \
        --custom-compile-command 'make lock' "$@" >/dev/null
}
compile "$@" --output-file requirements.lock
extras=(--extra avro --extra datadog --extra kafka --extra oidc --extra redis --extra slack --extra traces)
compile "$@" --output-file requirements-dev.lock --extra dev --constraint requirements.lock
compile "$@" --output-file requirements-extras.lock "${extras[@]}" --constraint requirements-dev.lock
