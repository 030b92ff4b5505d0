"""What needs no target: names, lines, rules, advice."""

from __future__ import annotations

import pytest

from element_store import Invalid, Volume
from protocols.block import Host, new_key, subsystem_nqn
from server.block import connect_lines, split_snapshot, volume_path
from server.cli.volume import parsed_size
from server.config import BlockSection
from server.doctor import check_block

NQN = "nqn.2014-08.org.nvmexpress:uuid:1b4e28ba-2fa1-11d2-883f-0016d3cca427"
VOLUME = Volume(3, "volumes/disk", "1b4e28ba-2fa1-81d2-883f-0016d3cca427", 1 << 30, 512, 0, 0, False)


@pytest.mark.parametrize(
    ("name", "path"),
    [("disk", "volumes/disk"), ("/disk", "volumes/disk"), ("images/a/b", "images/a/b"), ("/images/a", "images/a")],
)
def test_a_name_without_a_slash_is_in_the_bucket_of_volumes(name: str, path: str):
    assert volume_path(name) == path


@pytest.mark.parametrize("name", ["", "/", "a\0b"])
def test_what_is_no_name_is_refused(name: str):
    with pytest.raises(Invalid, match="no name of a volume"):
        volume_path(name)


def test_a_snapshot_of_a_volume_is_named_by_both():
    assert split_snapshot("disk@one") == ("disk", "one")
    assert split_snapshot("images/a@b@one") == ("images/a@b", "one")
    for name in ("disk", "@one", "disk@"):
        with pytest.raises(Invalid, match="NAME@SNAPSHOT"):
            split_snapshot(name)


@pytest.mark.parametrize(("text", "size"), [("512", 512), ("4k", 4096), ("20G", 20 << 30), ("1 TiB", 1 << 40), ("3MB", 3 << 20)])
def test_sizes_are_powers_of_1024(text: str, size: int):
    assert parsed_size(text) == size


def test_the_line_to_type_has_what_the_host_must_prove():
    lines = connect_lines(subsystem_nqn("pool"), "10.0.0.1:4420", VOLUME, host=NQN, key="DHHC-1:00:x:", controller_key="DHHC-1:00:y:")
    assert lines["connect"] == (
        "nvme connect -t tcp -a 10.0.0.1 -s 4420 -n nqn.2014-08.org.nvmexpress:uuid:pool "
        f"--hostnqn {NQN} --dhchap-secret DHHC-1:00:x: --dhchap-ctrl-secret DHHC-1:00:y:"
    )
    assert lines["device"].endswith(VOLUME.uuid)
    plain = connect_lines("nqn.x", "[fd00::1]:4420", VOLUME, host=None, key=None, controller_key=None)
    assert plain["connect"] == "nvme connect -t tcp -a fd00::1 -s 4420 -n nqn.x"


@pytest.mark.parametrize("nqn", ["", "host", "nqn." + "x" * 220, "nqn.\n", "nqn.ä"])
def test_what_is_no_nqn_is_refused(nqn: str):
    with pytest.raises(Invalid, match="is no NQN"):
        Host(nqn)


def test_keys_are_ones_and_go_together():
    key = new_key()
    assert Host(NQN, key=key, controller_key=new_key()).sees(VOLUME)
    assert key != new_key()
    with pytest.raises(Invalid, match="DHHC-1"):
        Host(NQN, key="secret")
    with pytest.raises(Invalid, match="goes with one of the host's"):
        Host(NQN, controller_key=key)


def test_a_host_sees_what_it_was_given():
    assert Host(NQN, [VOLUME.uuid]).sees(VOLUME)
    assert not Host(NQN, ["another"]).sees(VOLUME)
    assert not Host(NQN, []).sees(VOLUME)


def test_the_doctor_knows_who_could_attach_what():
    def found(**settings: object) -> list[tuple[str, str]]:
        return [(finding.level, finding.message) for finding in check_block(BlockSection(**settings))]

    assert [level for level, _ in found()] == ["ok"]
    ((level, message),) = found(listen=["0.0.0.0:4420"], allow_any_host=True)
    assert level == "warning" and "anybody who reaches" in message
    assert "in clear" in found(listen=["192.0.2.1:4420"])[0][1]
    assert any("do not try again" in message for _, message in found(target="nvmet"))
