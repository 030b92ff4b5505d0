"""The kernel's target by configfs, on a directory that refuses what the kernel refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.block.nvmet import Configuration, Host, Namespace, Nvmet, NvmetError, Port, Subsystem, from_json, to_json
from tests.protocols.block.configfs import FakeNvmet

UUIDS = ("11111111-2222-4333-8444-555555555555", "66666666-7777-4888-8999-aaaaaaaaaaaa")
KEY = "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:"
HOST, OTHER = "nqn.host-a", "nqn.host-b"


class Place:
    def __init__(self, path: Path, *, authenticates: bool = True) -> None:
        self.mount = path / "mount"
        self.mount.mkdir()
        self.target = FakeNvmet(path / "nvmet", authenticates=authenticates)

    def subsystem(self, index: int, hosts: list[str], *, any_host: bool = False) -> Subsystem:
        file = self.mount / f"volume-{index}"
        file.touch()
        return Subsystem(f"nqn.volume-{index}", f"serial{index}", [Namespace(str(file), UUIDS[index])], hosts, any_host)

    def wanted(self, *subsystems: Subsystem, keys: bool = False) -> Configuration:
        names = sorted({nqn for subsystem in subsystems for nqn in subsystem.hosts})
        port = Port("127.0.0.1", 4420, [subsystem.nqn for subsystem in subsystems])
        return Configuration(subsystems, [port], [Host(name, KEY if keys else None) for name in names])

    def apply(self, wanted: Configuration) -> None:
        self.target.apply(wanted, self.mount)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_wanted_is_there_and_stays_undisturbed(place: Place):
    wanted = place.wanted(place.subsystem(0, [HOST]), place.subsystem(1, [HOST, OTHER]))
    place.apply(wanted)
    found = place.target.read()
    assert [subsystem.nqn for subsystem in found.subsystems] == ["nqn.volume-0", "nqn.volume-1"]
    assert found.subsystems[1].hosts == [HOST, OTHER]
    assert found.ports == [Port("127.0.0.1", 4420, ["nqn.volume-0", "nqn.volume-1"], 1)]
    space = place.target._root / "subsystems/nqn.volume-0/namespaces/1"
    files = {name: (space / name).read_text() for name in ("device_nguid", "device_uuid", "buffered_io", "enable")}
    assert files == {"device_nguid": UUIDS[0], "device_uuid": UUIDS[0], "buffered_io": "0", "enable": "1"}
    place.target.writes.clear()
    place.apply(wanted)
    assert place.target.writes == [], "hosts keep their connections"


def test_hosts_come_and_go(place: Place):
    place.apply(place.wanted(place.subsystem(0, [HOST])))
    place.apply(place.wanted(place.subsystem(0, [OTHER])))
    assert place.target.read().subsystems[0].hosts == [OTHER]
    assert [host.nqn for host in place.target.read().hosts] == [OTHER], "nobody names the other any more"
    place.apply(place.wanted(place.subsystem(0, [], any_host=True)))
    assert place.target.read().subsystems[0].allow_any_host
    place.apply(place.wanted(place.subsystem(0, [HOST], any_host=True)))
    assert not place.target.read().subsystems[0].allow_any_host, "a host that is named narrows it"


def test_volumes_come_go_and_grow(place: Place):
    place.apply(place.wanted(place.subsystem(0, [HOST]), place.subsystem(1, [HOST])))
    place.apply(place.wanted(place.subsystem(1, [HOST])))
    assert [subsystem.nqn for subsystem in place.target.read().subsystems] == ["nqn.volume-1"]
    place.target.resized("nqn.volume-1")
    assert place.target.writes[-1] == ("subsystems/nqn.volume-1/namespaces/1/revalidate_size", "1")


def test_what_a_crash_left_goes_and_what_is_others_stays(place: Place, tmp_path: Path):
    foreign = tmp_path / "disk"
    foreign.touch()
    others = Subsystem("nqn.other", "theirs", [Namespace(str(foreign), UUIDS[1])], [OTHER])
    theirs = Configuration([others], [Port("127.0.0.1", 4421, ["nqn.other"])], [Host(OTHER)])
    place.target.apply(theirs, tmp_path / "nowhere")
    place.apply(place.wanted(place.subsystem(0, [HOST, OTHER])))
    place.target.clear(place.mount)
    found = place.target.read()
    assert [subsystem.nqn for subsystem in found.subsystems] == ["nqn.other"]
    assert ([port.service for port in found.ports], [host.nqn for host in found.hosts]) == ([4421], [OTHER])
    # Hosts lost the connection before the file: they never met its end.
    place.target.clear(place.mount)
    assert place.target.read() == found


def test_keys_are_given_to_the_kernel_or_the_host_is_refused(tmp_path: Path, place: Place):
    place.apply(place.wanted(place.subsystem(0, [HOST]), keys=True))
    assert place.target.read().hosts == [Host(HOST, KEY)]
    assert place.target.can_authenticate()
    (tmp_path / "without").mkdir()
    without = Place(tmp_path / "without", authenticates=False)
    assert not without.target.can_authenticate()
    with pytest.raises(NvmetError, match="no DH-HMAC-CHAP"):
        without.apply(without.wanted(without.subsystem(0, [HOST]), keys=True))
    assert without.target.read().subsystems == [], "nobody connects without proof"


def test_a_file_that_is_not_there_is_one_sentence(place: Place):
    missing = Subsystem("nqn.volume", "s", [Namespace(str(place.mount / "missing"), UUIDS[0])], [HOST])
    with pytest.raises(NvmetError, match="ENOENT"):
        place.apply(place.wanted(missing))
    place.target.clear(place.mount)
    assert place.target.read().subsystems == []


def test_without_the_kernels_target_it_says_so(tmp_path: Path):
    with pytest.raises(NvmetError, match="modprobe nvmet-tcp"):
        Nvmet(tmp_path).check()


def test_the_format_is_nvmetclis(place: Place):
    wanted = place.wanted(place.subsystem(0, [HOST]))
    text = json.loads(json.dumps(to_json(wanted)))
    assert text["subsystems"][0]["namespaces"][0]["device"]["uuid"] == UUIDS[0]
    assert text["ports"][0]["addr"] == {
        "adrfam": "ipv4",
        "traddr": "127.0.0.1",
        "treq": "not specified",
        "trsvcid": "4420",
        "trtype": "tcp",
    }
    again = from_json(text)
    assert to_json(again) == text
    place.apply(again)
    assert to_json(place.target.read()) == text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["nqn", "addr", "namespaces", "device", "attr"]), inner),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["hosts", "ports", "subsystems"]), anything))
def test_what_is_no_such_file_is_one_sentence(text: dict[str, object]):
    try:
        found = from_json(text)
    except NvmetError as error:
        assert "nvmetcli" in str(error)
    else:
        assert from_json(to_json(found)) is not None
