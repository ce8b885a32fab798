#!/usr/bin/env bash
# Ensures that programs exist: `debian.sh PROGRAM=PACKAGE ...` installs the packages of missing programs where it
# runs as root on Debian, and otherwise prints what to install. A package without a program of its own is `=PACKAGE`.
# PostgreSQL's programs are looked for in Debian's own folder, too.
set -euo pipefail

exists() {
    [ -n "$1" ] && { command -v "$1" || compgen -G "/usr/lib/postgresql/*/bin/$1"; } >/dev/null
}

missing=()
for pair in "$@"; do
    exists "${pair%%=*}" || missing+=("${pair#*=}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Missing: ${missing[*]}. On Debian: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
echo "Installing ${missing[*]}"
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
for pair in "$@"; do
    program=${pair%%=*}
    if [ -n "$program" ] && ! exists "$program"; then
        echo "${pair#*=} is installed, yet $program cannot be found." >&2
        exit 1
    fi
done
