"""`trefoil volume` and `trefoil host` against a daemon on a real store: what works, and a sentence for each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.errors import Exit
from tests.proof.block.host import Host, Refused
from tests.proof.daemon import Daemon, free_port, trefoil
from tests.proof.s3 import S3Client, S3Error
from tests.server.conftest import ROOT, clean_environment

NQN = "nqn.2014-08.org.nvmexpress:uuid:1b4e28ba-2fa1-11d2-883f-0016d3cca427"
OTHER = "nqn.2014-08.org.nvmexpress:uuid:6fa459ea-ee8a-4ca4-894e-db77e160355e"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("volumes")
    devices = [directory / f"device-{number}" for number in range(2)]
    for device in devices:
        device.mkdir()
    listen = f"127.0.0.1:{free_port()}"
    daemon = Daemon(trefoil(devices, directory / "state", env={"TREFOIL_BLOCK__LISTEN": listen}), directory / "log")
    daemon.start()
    yield daemon
    assert daemon.stop() == 0, daemon.tail()


def run(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from server.cli import main; main()", *arguments]
    environment = clean_environment(TREFOIL_STATE=daemon.spec.env["TREFOIL_STATE"])
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def ask(daemon: Daemon, *arguments: str) -> Any:
    done = run(daemon, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(daemon: Daemon, *arguments: str) -> str:
    done = run(daemon, *arguments)
    assert (done.returncode, done.stdout) == (Exit.FAILED, ""), done
    return done.stderr.removeprefix("trefoil: ").strip()


def attach(daemon: Daemon, name: str, host: str = NQN) -> Host:
    line = ask(daemon, "volume", "connect", name, "--host", host)
    return Host(line["address"], line["nqn"], host_nqn=host)


def volume_of(daemon: Daemon, path: str) -> Any:
    return next(one for one in ask(daemon, "volume", "list") if one["path"] == path)


def wait_until(is_so: Callable[[], bool], seconds_max: float = 90) -> None:
    """A host that said no goodbye may come back: its volumes stay attached for a while."""
    until = time.monotonic() + seconds_max
    while not is_so():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.05)


@pytest.fixture
def volume(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.replace("_", "-")[:40]
    done = run(daemon, "volume", "create", name, "4M")
    assert done.stdout == f"created volume volumes/{name}, 4.0 MiB; to attach it: trefoil volume connect {name}\n", done.stderr
    yield name
    run(daemon, "volume", "delete", name, "--force")


def test_volumes_are_made_listed_resized_and_deleted(daemon: Daemon, volume: str):
    (made,) = [one for one in ask(daemon, "volume", "list") if one["path"] == f"volumes/{volume}"]
    assert (made["size"], made["block_size"], made["allocated"], made["handles"], made["unlocked"]) == (4 << 20, 512, 0, 0, False)
    assert made["uuid"] in run(daemon, "volume", "list").stdout
    assert run(daemon, "volume", "resize", volume, "8M").stdout == f"volume volumes/{volume} has 8.0 MiB now\n"
    assert "would be lost" in refused(daemon, "volume", "resize", volume, "1M")
    assert ask(daemon, "volume", "resize", made["uuid"], "1M", "--force")["size"] == 1 << 20
    assert refused(daemon, "volume", "create", volume, "1M").startswith(f"volumes/{volume} exists already")
    assert run(daemon, "volume", "delete", volume).stdout == f"deleted volume {volume}\n"
    assert refused(daemon, "volume", "delete", volume) == f"there is no volume volumes/{volume}; `trefoil volume list` lists them"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("create", "x", "1000"), "a volume's size is a multiple of its block"),
        (("create", "x", "1M", "--block-size", "1024"), "512 or 4096"),
        (("create", "absent-bucket/x", "1M"), "there is no bucket absent-bucket"),
        (("from-file", "volumes/absent"), "there is no file volumes/absent"),
        (("resize", "absent", "1M"), "there is no volume"),
        (("unlock", "absent"), "there is no volume"),
        (("connect", "absent"), "there is no volume"),
        (("to-file", "absent"), "there is no volume"),
    ],
)
def test_mistakes_are_one_sentence(daemon: Daemon, arguments: tuple[str, ...], sentence: str):
    message = refused(daemon, "volume", *arguments)
    assert sentence in message and "\n" not in message


@pytest.mark.parametrize("size", ["", "0", "-1", "1X", "1.5G", "9999999999999999999P", "M"])
def test_what_is_no_size_is_refused_before_anything_is_asked(daemon: Daemon, size: str):
    done = run(daemon, "volume", "create", "--", "x", size)
    assert done.returncode == Exit.USAGE and "is no size" in done.stderr


def test_a_host_attaches_what_it_may(daemon: Daemon, volume: str):
    line = run(daemon, "volume", "connect", volume, "--host", NQN).stdout
    assert line.startswith("nvme connect -t tcp -a 127.0.0.1 -s ") and f"--hostnqn {NQN}" in line
    assert f"trefoil host allow {NQN} --volume {volume}" in line
    with pytest.raises(Refused):
        attach(daemon, volume)
    assert run(daemon, "host", "allow", NQN, "--volume", volume).stdout == f"{NQN} may attach volumes/{volume}\n"
    other = ask(daemon, "volume", "create", f"{volume}-2", "1M")
    with attach(daemon, volume) as host:
        (nsid,) = host.namespaces()
        assert host.namespace(nsid).size_bytes == 4 << 20
        host.write(nsid, 4096, b"x" * 4096)
        host.flush(nsid)
        assert host.read(nsid, 0, 8192) == bytes(4096) + b"x" * 4096
        (shown,) = [one for one in ask(daemon, "host", "list") if one["nqn"] == NQN]
        assert shown["volumes"] == [f"volumes/{volume}"] and shown["sessions"]
        assert "disconnect them first" in refused(daemon, "volume", "delete", volume)
        assert "disconnect them first" in refused(daemon, "volume", "to-file", volume)
        ask(daemon, "host", "allow", NQN, "--volume", f"{volume}-2")
        assert sorted(host.namespaces()) == sorted([nsid, other["id"]])
        metrics = daemon.metrics()
        assert metrics[f'trefoil_volume_attached{{volume="volumes/{volume}"}}'] == 1
        assert metrics[f'trefoil_volume_write_bytes_total{{volume="volumes/{volume}"}}'] == 4096
        run(daemon, "host", "deny", NQN)
        with pytest.raises((OSError, Refused)):
            host.read(nsid, 0, 4096)
    run(daemon, "volume", "delete", f"{volume}-2")
    assert refused(daemon, "host", "deny", NQN).startswith(f"{NQN} is no host that may attach anything")


def test_hosts_with_keys_prove_them(daemon: Daemon, volume: str):
    made = ask(daemon, "host", "allow", OTHER, "--dhchap-key", "new", "--dhchap-ctrl-key", "new")
    assert made["authenticated"] and made["dhchap_key"].startswith("DHHC-1:00:") and made["dhchap_ctrl_key"] != made["dhchap_key"]
    line = ask(daemon, "volume", "connect", volume, "--host", OTHER)
    assert f"--dhchap-secret {made['dhchap_key']}" in line["connect"]
    assert "dhchap_key" not in ask(daemon, "host", "allow", OTHER), "it is shown to whoever made it, once"
    with pytest.raises((OSError, Refused)):
        # Connects without saying so, as Debian 12's kernel does.
        attach(daemon, volume, OTHER)
    letter = made["dhchap_key"][20]
    mistyped = made["dhchap_key"][:20] + ("A" if letter != "A" else "B") + made["dhchap_key"][21:]
    assert "mistyped" in refused(daemon, "host", "allow", OTHER, "--dhchap-key", mistyped)
    assert "is no NQN" in refused(daemon, "host", "allow", "my-host")
    assert "may attach every volume already" in refused(daemon, "host", "allow", OTHER, "--volume", volume)
    run(daemon, "host", "deny", OTHER)


def test_an_image_uploaded_by_s3_is_attached_and_read_by_s3(daemon: Daemon):
    image = bytes(range(256)) * 4096
    with S3Client(daemon.spec.endpoint, "images") as client:
        client.create_bucket()
        client.put("disk.img", image)
        made = run(daemon, "volume", "from-file", "images/disk.img")
        assert made.stdout.startswith("images/disk.img is a volume of 1.0 MiB now"), made.stderr
        ask(daemon, "host", "allow", NQN, "--volume", "images/disk.img")
        with attach(daemon, "images/disk.img") as host:
            (nsid,) = host.namespaces()
            assert host.read(nsid, 0, 65536) == image[:65536]
            host.write(nsid, 512, b"w" * 512, durable=True)
            with pytest.raises(S3Error) as conflict:
                client.put("disk.img", b"other")
            assert (conflict.value.status, conflict.value.code) == (409, "ObjectIsAttachedVolume")
            expected = image[:512] + b"w" * 512 + image[1024:]
            assert client.get("disk.img") == expected
            assert "every face may change" in run(daemon, "volume", "unlock", "images/disk.img").stdout
        wait_until(lambda: not volume_of(daemon, "images/disk.img")["handles"])
        assert "is not locked" in refused(daemon, "volume", "unlock", "images/disk.img")
        assert run(daemon, "volume", "to-file", "images/disk.img").stdout == "images/disk.img is a plain file now\n"
        assert client.get("disk.img") == expected
    run(daemon, "host", "deny", NQN)


def test_status_names_the_target_once_it_runs(daemon: Daemon, volume: str):
    assert daemon.spec.env["TREFOIL_BLOCK__LISTEN"] in run(daemon, "status").stdout
    assert ask(daemon, "status")["endpoints"]["block"] == daemon.spec.env["TREFOIL_BLOCK__LISTEN"]


def test_the_state_directory_is_not_needed_for_hosts(daemon: Daemon, volume: str):
    ask(daemon, "host", "allow", NQN, "--volume", volume)
    daemon.kill()
    Path(daemon.spec.env["TREFOIL_STATE"], "endpoints.json").unlink(missing_ok=True)
    daemon.start()
    with attach(daemon, volume) as host:
        assert len(host.namespaces()) == 1
    run(daemon, "host", "deny", NQN)
