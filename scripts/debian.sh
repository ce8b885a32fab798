#!/usr/bin/env bash
# Ensures that programs exist: `debian.sh PROGRAM=PACKAGE ...` installs the packages of missing programs where it
# runs as root on Debian, and otherwise prints what to install. A package without a program of its own is `=PACKAGE`.
# PostgreSQL's programs are looked for in Debian's own folder, too. Several of these may run at the same time: one
# installs, the others wait for it. While another program holds the locks of apt, it tries again for ten minutes.
set -euo pipefail

exists() {
    [ -n "$1" ] && { command -v "$1" || compgen -G "/usr/lib/postgresql/*/bin/$1"; } >/dev/null
}

find_missing() { # PROGRAM=PACKAGE...: sets `missing` to the packages of those that do not exist
    local pair
    missing=()
    for pair in "$@"; do
        exists "${pair%%=*}" || missing+=("${pair#*=}")
    done
}

apt() { # ARGUMENT...
    local errors until=$((SECONDS + 600))
    # Without descriptor 9: a service that a package starts would keep the lock.
    while ! errors=$(apt-get -o DPkg::Lock::Timeout=600 -qq "$@" 2>&1 >/dev/null 9<&-); do
        if [[ $errors != *"Could not get lock"* || $SECONDS -ge $until ]]; then
            echo "apt-get $1 failed: $errors" >&2
            return 1
        fi
        sleep 1
    done
}

find_missing "$@"
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Missing: ${missing[*]}. On Debian: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
exec 9</var/lib/dpkg
flock 9
find_missing "$@" # again: another process may have installed them meanwhile
[ ${#missing[@]} -gt 0 ] || exit 0
echo "Installing ${missing[*]}"
apt update
apt install -y --no-install-recommends "${missing[@]}"
for pair in "$@"; do
    program=${pair%%=*}
    if [ -n "$program" ] && ! exists "$program"; then
        echo "${pair#*=} is installed, yet $program cannot be found." >&2
        exit 1
    fi
done
