"""xfstests: the tests that filesystems of the kernel must pass, on mounts of two stores of their own.

The suite mounts and unmounts by itself, by `mount -t fuse.trefoil`; so it gets a mount helper, two unprivileged users and its directories in a namespace of
its own, in which nothing of this machine is changed and which takes every process with it when it ends. What serves a mount is the engine's
example `store_mount`, which ends with its mount: each remount opens the store anew.

A failure that is explained in `xfstests_explained.py` is not one of the verdict; one that is explained and passes is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.proof.posix.verdict import Verdict
from tests.proof.posix.xfstests_explained import EXPLAINED

POOLS = ("pool-one", "pool-two")
"""Names that no output of a test holds, as the suite replaces them there."""
DEVICES = 3
DEVICE_BYTES = 3 << 30
REASON_LINES = 4
FULL_SECONDS_MAX = 6 * 3600.0
USERS = ("fsgqa:*:7001:7001", "fsgqa2:*:7002:7002", "123456-fsgqa:*:7003:7003")
RESULT = re.compile(r"^(\w+/\d+)\s")

HELPER = """#!/bin/bash
# mount -t fuse.trefoil SOURCE DIRECTORY: made by tests.proof.posix for one run.
source=$1 directory=$2
shift 2
options=()
flags=()
while [ $# -gt 0 ]; do
    case $1 in
        -o) IFS=, read -ra given <<<"$2"; shift ;;
        *) given=() ;;
    esac
    shift
    for option in "${given[@]}"; do
        case $option in
            remount) remount=1 ;;
            ro) options+=(--read-only) flags+=(ro) ;;
            nosuid) options+=(--no-set-id) flags+=(nosuid) ;;
            nodev) options+=(--no-devices) flags+=(nodev) ;;
            noatime) options+=(--no-access-times) flags+=(noatime) bound=1 ;;
            rw | suid | dev | noexec | exec | atime | nodiratime | diratime | relatime | norelatime | strictatime | sync | async | dirsync)
                flags+=("$option") bound=1 ;;
            defaults | allow_other | default_permissions | "") ;;
            context=*) ;;
            *) echo "mount.fuse.trefoil: $option is no option of this filesystem" >&2; exit 32 ;;
        esac
    done
done
joined=$(IFS=,; echo "${flags[*]}")
if [ -n "${remount:-}" ]; then
    exec mount -i -o "remount,$joined" "$directory"
fi
pool=@WORK@/$source
[ -d "$pool" ] || { echo "mount.fuse.trefoil: no pool $source" >&2; exit 32; }
log=$pool/log
# The one before may still close the store.
exec 9>"$pool/lock"
flock -w 60 9 || { echo "mount.fuse.trefoil: $source is in use" >&2; exit 32; }
: >"$log"
ulimit -c 0
setsid @SERVER@ --until-unmounted --name "$source" "${options[@]}" "$directory" "$pool/state" "$pool"/device-* >"$log" 2>>"$pool/errors" </dev/null &
server=$!
exec 9>&-
until grep -q mounted "$log"; do
    kill -0 $server 2>/dev/null || { tail -1 "$pool/errors" >&2; exit 32; }
    sleep 0.02
done
if [ -n "${bound:-}" ]; then mount -i -o "remount,bind,$joined" "$directory"; fi
"""

# The suite knows the filesystem by the type without its subtype.
DF = """#!/bin/bash
set -o pipefail
/usr/bin/df "$@" | sed 's/fuse[.]trefoil/fuse        /'
"""

INSIDE = """set -e
mount --make-rprivate /
mount -t overlay -o lowerdir=@WORK@/sbin:/usr/sbin overlay /usr/sbin
mount --bind @WORK@/passwd /etc/passwd
mount --bind @WORK@/group /etc/group
cd @SUITE@
export PATH=/usr/sbin:$PATH HOST_OPTIONS=@WORK@/local.config RESULT_BASE=@WORK@/results
set +e
./check "$@"
umount @WORK@/mnt/one @WORK@/mnt/two 2>/dev/null
# What served them closes its store.
for pool in pool-one pool-two; do flock -w 60 @WORK@/$pool/lock true; done
"""

CONFIG = """export TEST_DEV=pool-one
export TEST_DIR=@WORK@/mnt/one
export SCRATCH_DEV=pool-two
export SCRATCH_MNT=@WORK@/mnt/two
export FSTYP=fuse
export FUSE_SUBTYP=.trefoil
export MOUNT_OPTIONS="-o allow_other,default_permissions"
export TEST_FS_MOUNT_OPTS="-o allow_other,default_permissions"
"""


@dataclass(frozen=True)
class Run:
    """What the suite says of the tests that it was asked for."""

    passed: list[str]
    failed: dict[str, str]
    not_run: dict[str, str]


def run(suite: Path, work: Path, server: Path, tests: Sequence[str] = ("-g", "generic/quick")) -> tuple[Verdict, Run]:
    """`work`: an empty directory with room for two stores, which stay there for a look. `tests`: the suite's own arguments. Needs root."""
    _prepare(suite.resolve(), work, server.resolve())
    with (work / "check.out").open("wb") as out:
        subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", str(work / "inside"), *tests],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=FULL_SECONDS_MAX,
            check=False,
        )
    done = read(work / "results", (work / "check.out").read_text(errors="replace"))
    return judge(done, EXPLAINED), done


def _prepare(suite: Path, work: Path, server: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    if any(work.iterdir()):
        raise FileExistsError(f"{work} is not empty")
    for pool in POOLS:
        (work / "mnt" / pool.removeprefix("pool-")).mkdir(parents=True)
        (work / pool).mkdir()
        for number in range(DEVICES):
            with (work / pool / f"device-{number}").open("wb") as device:
                device.truncate(DEVICE_BYTES)
    (work / "results").mkdir()
    (work / "sbin").mkdir()
    users = "".join(f"{user}::/:/bin/bash\n" for user in USERS)
    (work / "passwd").write_text(Path("/etc/passwd").read_text() + users)
    (work / "group").write_text(Path("/etc/group").read_text() + "".join(f"{user.rpartition(':')[0]}:\n" for user in USERS))
    for name, text in (("sbin/mount.fuse.trefoil", HELPER), ("sbin/df", DF), ("inside", INSIDE), ("local.config", CONFIG)):
        text = text.replace("@WORK@", str(work.resolve())).replace("@SERVER@", str(server)).replace("@SUITE@", str(suite))
        (work / name).write_text(text)
    for program in (work / "sbin").iterdir():
        program.chmod(0o755)


def read(results: Path, said: str) -> Run:
    """By the lines of `check` and the files that it leaves beside them."""
    run_ = Run([], {}, {})
    for line in said.splitlines():
        if not (found := RESULT.match(line)):
            continue
        name, rest = found[1], line[found.end() :]
        at = results / name
        if "[not run]" in rest:
            run_.not_run[name] = rest.partition("[not run]")[2].strip()
        elif "[failed" in rest or "- output mismatch" in rest or "[expunged]" in rest or "_check_dmesg" in rest:
            run_.failed[name] = _reason(at)
        elif re.search(r"\d+s\s*$", rest):
            run_.passed.append(name)
        else:
            run_.failed[name] = f"unclear: {rest.strip()}"
    return run_


def _reason(at: Path) -> str:
    bad = at.with_suffix(".out.bad")
    if not bad.is_file():
        return "no output"
    lines = [line.strip() for line in bad.read_text(errors="replace").splitlines() if line.strip() and not line.startswith("QA output")]
    return " | ".join(lines[:REASON_LINES])


def judge(done: Run, explained: dict[str, str]) -> Verdict:
    verdict = Verdict("xfstests", passed=len(done.passed))
    for name, reason in sorted(done.failed.items()):
        if name in explained:
            verdict.expected_failures += 1
        else:
            verdict.failures.append(f"{name}: {reason}")
    verdict.failures += [f"{name}: passes, but is explained: {explained[name]}" for name in done.passed if name in explained]
    return verdict


def remove(work: Path) -> None:
    shutil.rmtree(work)
