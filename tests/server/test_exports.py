from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from server import exports
from server.config import ExportSection, NfsSection

POOL = "12345678-1234-5678-1234-567812345678"
MOUNT = PurePosixPath("/srv/trefoil")


def export(**more) -> ExportSection:
    return ExportSection.model_validate({"path": "/bucket", **more})


def nfs(**more) -> NfsSection:
    return NfsSection.model_validate({"export": [{"path": "/bucket"}], **more})


def test_a_client_needs_one_port_and_no_port_mapper():
    line = exports.mount_line(nfs(listen="192.0.2.1:12049"), export(), "server")
    assert line.endswith(" 192.0.2.1:/bucket /mnt")
    assert {"vers=3", "proto=tcp", "port=12049", "mountport=12049", "hard", "nolock"} <= set(line.split()[4].split(","))


def test_locks_need_the_port_mapper_at_its_own_port():
    assert exports.serves_locks(nfs(portmapper="0.0.0.0:111"))
    assert "nolock" not in exports.mount_options(nfs(portmapper="0.0.0.0:111"))
    for without in (nfs(), nfs(portmapper="0.0.0.0:1111"), nfs(portmapper="0.0.0.0:111", locks=False)):
        assert "nolock" in exports.mount_options(without)


@pytest.mark.parametrize(
    ("listen", "name"),
    [("0.0.0.0:2049", "server"), ("[::]:2049", "server"), ("[fd00::1]:2049", "[fd00::1]"), ("a.example:2049", "a.example")],
)
def test_the_server_is_called_as_clients_reach_it(listen, name):
    assert exports.server_name(nfs(listen=listen), "server") == name


def test_a_path_is_quoted_for_the_shell():
    assert "'server:/bucket/a b'" in exports.mount_line(nfs(listen="0.0.0.0:2049"), export(path="/bucket/a b"), "server")


def test_the_kernels_server_gets_one_line_a_path_with_all_its_rules():
    rules = [
        export(clients=["10.0.0.0/8", "192.0.2.7"], squash="all", anonymous_uid=5, anonymous_gid=6, access="ro"),
        export(path="/bucket/a b"),
        export(clients=["fd00::/8"], squash="none", privileged_ports=True),
    ]
    head, first, second = exports.nfsd_exports(MOUNT, rules, POOL).splitlines()
    assert head.startswith("#")
    path, *clients = first.split()
    assert path == "/srv/trefoil/bucket"
    assert [client.partition("(")[0] for client in clients] == ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]
    assert "(ro,sync,no_subtree_check,root_squash,all_squash,insecure,anonuid=5,anongid=6,fsid=" in clients[0]
    assert "no_root_squash,secure" in clients[2]
    assert second.startswith("/srv/trefoil/bucket/a\\040b ")


def test_the_fsid_is_the_pools_and_the_paths():
    def fsid(path: str, pool: str) -> str:
        return exports.nfsd_exports(MOUNT, [export(path=path)], pool).partition("fsid=")[2].partition(")")[0]

    other = POOL.replace("1", "2")
    assert fsid("/bucket", POOL) == fsid("/bucket", POOL)
    assert len({fsid("/bucket", POOL), fsid("/other", POOL), fsid("/bucket", other)}) == 3
