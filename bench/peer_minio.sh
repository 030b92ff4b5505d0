#!/usr/bin/env bash
# Builds the peer that bench/compare.py measures against: MinIO's server from the Go module proxy, and our load generator.
# MinIO's release tags are not semantic versions, so the module is pinned by its pseudo-version: the last commit of the archived repository.
set -euo pipefail

minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
target=${1:?usage: bench/peer_minio.sh DIRECTORY}
here=$(cd "$(dirname "$0")" && pwd)

command -v go >/dev/null || { echo "peer_minio.sh: needs Go >= 1.24" >&2; exit 1; }
mkdir -p "$target"
target=$(cd "$target" && pwd)
if [ ! -x "$target/minio" ]; then
    GOBIN=$target GOFLAGS="-buildvcs=false -p=2" go install "github.com/minio/minio@$minio_version"
fi
(cd "$here/loadgen" && go build -buildvcs=false -o "$target/loadgen" .)
echo "$target/minio $minio_version, $target/loadgen"
