"""`trefoil mount` against a daemon on a real store: what works, and a sentence for each mistake. Needs root and /dev/fuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from server.errors import Exit
from tests.proof.daemon import Daemon, Spec, free_port, trefoil
from tests.server.conftest import ROOT, clean_environment, run_trefoil


@pytest.fixture(scope="module")
def store_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("mounts")
    spec = trefoil(_devices(directory), directory / "state")
    daemon = Daemon(spec, directory / "log")
    daemon.start()
    for bucket in ("photos", "other"):
        assert run(daemon, "bucket", "create", bucket).returncode == 0
    yield daemon
    assert daemon.stop() == 0, daemon.tail()


def _devices(directory: Path) -> Sequence[Path]:
    devices = [directory / f"device-{number}" for number in range(2)]
    for device in devices:
        device.mkdir()
    return devices


def run(daemon: Daemon, *arguments: str, program: str = "server.cli") -> subprocess.CompletedProcess[str]:
    entry = "server.cli.mount import fstab as main" if program == "mount.trefoil" else "server.cli import main"
    command = [sys.executable, "-c", f"from {entry}; main()", *arguments]
    environment = clean_environment(TREFOIL_STATE=daemon.spec.env["TREFOIL_STATE"])
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def point(tmp_path: Path) -> Path:
    path = tmp_path / "point"
    path.mkdir()
    return path


@pytest.mark.parametrize("engine", ["native", "pyfuse3"])
def test_one_bucket_is_mounted_listed_and_unmounted(store_daemon: Daemon, point: Path, engine: str):
    done = run(store_daemon, "mount", str(point), "--view", "photos", "--engine", engine)
    assert done.stdout == f"mounted bucket photos on {point}; to end it: trefoil umount {point}\n", done.stderr
    (point / "f").write_bytes(b"content")
    listed = json.loads(run(store_daemon, "mount", "--json").stdout)
    assert listed == [{"path": str(point), "view": "photos", "engine": engine, "read_only": False, "strict": False}]
    assert engine in run(store_daemon, "mount").stdout
    assert run(store_daemon, "umount", str(point)).stdout == f"unmounted {point}\n"
    assert os.listdir(point) == []
    assert run(store_daemon, "mount").stdout == "no mounts; make one: trefoil mount DIRECTORY [--view BUCKET]\n"


def test_all_buckets_for_reading_from_a_relative_path(store_daemon: Daemon, point: Path, monkeypatch: pytest.MonkeyPatch):
    path = os.path.relpath(point, ROOT)
    assert run(store_daemon, "mount", path, "--read-only").returncode == 0
    assert sorted(os.listdir(point)) == ["other", "photos"]
    with pytest.raises(OSError, match="Read-only"):
        (point / "photos/x").touch()
    assert run(store_daemon, "umount", path).returncode == 0


def test_what_was_unmounted_by_hand_is_not_listed(store_daemon: Daemon, point: Path):
    assert run(store_daemon, "mount", str(point)).returncode == 0
    subprocess.run(["umount", point], check=True)
    assert json.loads(run(store_daemon, "mount", "--json").stdout) == []
    done = run(store_daemon, "umount", str(point))
    assert (done.returncode, done.stderr) == (1, f"trefoil: {point} is no mount of this daemon; `trefoil mount` lists them\n")


def test_every_mistake_is_one_sentence(store_daemon: Daemon, point: Path):
    (file := point.parent / "file").touch()
    (full := point.parent / "full").mkdir()
    (full / "something").touch()
    cases: Sequence[tuple[Sequence[str], str]] = (
        (("mount", "/nowhere/at/all"), "there is no directory /nowhere/at/all"),
        (("mount", str(file)), f"{file} is not a directory"),
        (("mount", str(full)), f"{full} is not empty; mount on an empty directory"),
        (("mount", str(point), "--view", "absent"), "there is no bucket absent"),
        (("mount", str(point), "--engine", "steam"), "there is no engine steam: native or pyfuse3"),
        (
            ("mount", str(point), "-o", "ro,noatime"),
            "'noatime' is no mount option: ro, rw, sync, async, allow_other, suid, nosuid, dev, nodev",
        ),
        (("umount", str(point)), f"{point} is no mount of this daemon; `trefoil mount` lists them"),
    )
    for arguments, sentence in cases:
        done = run(store_daemon, *arguments)
        assert (done.returncode, done.stderr) == (Exit.FAILED, f"trefoil: {sentence}\n")
    assert run(store_daemon, "mount", str(point)).returncode == 0
    again = run(store_daemon, "mount", str(point))
    assert (again.returncode, again.stderr) == (Exit.FAILED, f"trefoil: {point} has something mounted on it already\n")
    assert run(store_daemon, "umount", str(point)).returncode == 0


def test_pyfuse3_mounts_once(store_daemon: Daemon, point: Path):
    (second := point.parent / "second").mkdir()
    assert run(store_daemon, "mount", str(point), "--engine", "pyfuse3").returncode == 0
    refused = run(store_daemon, "mount", str(second), "--engine", "pyfuse3")
    said = f"trefoil: {second} cannot be mounted: pyfuse3 serves one mount in a process, and that is {point}\n"
    assert (refused.returncode, refused.stderr) == (Exit.FAILED, said)
    assert run(store_daemon, "mount", str(second)).returncode == 0
    assert {path.name for path in (*point.iterdir(), *second.iterdir())} == {"photos", "other"}
    for path in (point, second):
        assert run(store_daemon, "umount", str(path)).returncode == 0


def test_mount_8_can_be_told_by_fstab(store_daemon: Daemon, point: Path):
    words = "rw,_netdev,nofail,x-systemd.automount,sync,nodev"
    done = run(store_daemon, "photos", str(point), "-o", words, program="mount.trefoil")
    assert (done.returncode, done.stderr) == (0, "")
    listed = json.loads(run(store_daemon, "mount", "--json").stdout)
    assert listed == [{"path": str(point), "view": "photos", "engine": "native", "read_only": False, "strict": True}]
    subprocess.run(["umount", point], check=True)
    assert run(store_daemon, "all", str(point), "-f", program="mount.trefoil").returncode == 0, "-f: nothing is done"
    assert not os.path.ismount(point)
    refused = run(store_daemon, "absent", str(point), "-n", "-o", "ro", program="mount.trefoil")
    assert (refused.returncode, refused.stderr) == (Exit.FAILED, "trefoil: there is no bucket absent\n")
    assert run(store_daemon, "photos", program="mount.trefoil").returncode == Exit.USAGE


def test_mounts_made_at_run_time_end_with_the_daemon(tmp_path: Path, point: Path):
    daemon = Daemon(trefoil(_devices(tmp_path), tmp_path / "state"), tmp_path / "log")
    daemon.start()
    (second := tmp_path / "second").mkdir()
    assert run(daemon, "mount", str(point)).returncode == 0
    assert run(daemon, "mount", str(second), "--engine", "pyfuse3").returncode == 0
    held = os.open(point, os.O_RDONLY)
    assert daemon.stop() == 0
    assert not os.path.ismount(point)
    assert not os.path.ismount(second)
    os.close(held)
    gone = run(daemon, "mount", str(point))
    assert gone.returncode == Exit.UNREACHABLE
    assert gone.stderr.startswith("trefoil: no daemon answers at ")


def test_a_path_on_another_machine_must_be_absolute():
    done = run_trefoil("mount", "here", TREFOIL_ADMIN_URL=f"http://127.0.0.1:{free_port()}")
    assert (done.returncode, done.stderr) == (
        Exit.USAGE,
        "trefoil: here must be an absolute path: it is on the machine of the daemon\n",
    )


def test_a_configured_engine_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path, point: Path):
    (hidden := tmp_path / "hidden/pyfuse3").mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('libfuse3.so.3: cannot open shared object file: No such file')")
    env = {"TREFOIL_FILE__MOUNT": str(point), "TREFOIL_FILE__ENGINE": "pyfuse3", "PYTHONPATH": str(hidden.parent)}
    spec: Spec = trefoil(_devices(tmp_path), tmp_path / "state", env=env)
    done = subprocess.run(list(spec.argv), env={**os.environ, **spec.env}, capture_output=True, text=True, timeout=60)
    assert done.returncode == Exit.REFUSED
    assert "the engine pyfuse3 cannot be used: it needs the library libfuse3" in done.stderr.splitlines()[-1]
