"""What to type on a client, and what the kernel's NFS server is told: text made from the configuration, nothing else.

`mount_options` fit our own server (version 3). `nfsd_exports` lets the kernel's server export the FUSE mount, for version 4; exports(5) is its format.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator
from pathlib import PurePosixPath

from server.config import ExportSection, NfsSection, address_parts

NFSD_PATH_DEFAULT = "/etc/exports.d/trefoil.exports"
NFS_PORT = 2049
PORTMAPPER_PORT = 111
ANY_ADDRESS = ("", "0.0.0.0", "::")
TRANSFER_BYTES = 1 << 20
HEAD = "# Written by `trefoil export --nfsd`, which overwrites it. Take it in with: exportfs -ra\n"


def serves_locks(settings: NfsSection) -> bool:
    """To clients as they are: they look for the port mapper at its own port and nowhere else."""
    return settings.locks and settings.portmapper is not None and address_parts(settings.portmapper)[1] == PORTMAPPER_PORT


def mount_options(settings: NfsSection) -> str:
    """The kernel finds all at the one port, so that nothing but it must be reachable."""
    port = address_parts(settings.listen)[1]
    options = f"vers=3,proto=tcp,port={port},mountproto=tcp,mountport={port},hard,rsize={TRANSFER_BYTES},wsize={TRANSFER_BYTES}"
    return options if serves_locks(settings) else f"{options},nolock"


def server_name(settings: NfsSection, host: str) -> str:
    """As clients write it: `host` where the server listens on every address. An IPv6 address has brackets in front of a path."""
    configured = address_parts(settings.listen)[0]
    name = host if configured in ANY_ADDRESS else configured
    return f"[{name}]" if ":" in name else name


def mount_line(settings: NfsSection, export: ExportSection, host: str, directory: str = "/mnt") -> str:
    return f"mount -t nfs -o {mount_options(settings)} {shlex.quote(f'{server_name(settings, host)}:{export.path}')} {directory}"


def nfsd_mount_line(mount: PurePosixPath, export: ExportSection, host: str, directory: str = "/mnt") -> str:
    return f"mount -t nfs -o vers=4.2 {shlex.quote(f'{host}:{nfsd_path(mount, export.path)}')} {directory}"


def nfsd_path(mount: PurePosixPath, path: str) -> str:
    return str(mount / path.lstrip("/"))


def nfsd_exports(mount: PurePosixPath, exports: list[ExportSection], pool: str) -> str:
    """For exports.d(5): one line a path. `pool` is the pool's UUID: file handles hold a `fsid` made of it, so they outlive the mount."""
    lines = []
    for path in dict.fromkeys(export.path for export in exports):
        rules = [rule for export in exports if export.path == path for rule in _nfsd_rules(export, pool)]
        lines.append(f"{_octal(nfsd_path(mount, path))} {' '.join(rules)}\n")
    return HEAD + "".join(lines)


def _nfsd_rules(export: ExportSection, pool: str) -> Iterator[str]:
    squash = {"root": "root_squash", "all": "root_squash,all_squash", "none": "no_root_squash"}[export.squash]
    options = [
        export.access,
        "sync",
        "no_subtree_check",
        squash,
        "secure" if export.privileged_ports else "insecure",
        f"anonuid={export.anonymous_uid}",
        f"anongid={export.anonymous_gid}",
        # FUSE has no device number that lasts; without fsid the kernel refuses to export it.
        f"fsid={uuid.uuid5(uuid.UUID(pool), export.path)}",
    ]
    for client in export.clients:
        yield f"{client}({','.join(options)})"


def _octal(path: str) -> str:
    """exports(5) takes spaces and the like as backslash and three octal digits."""
    return "".join(chr(byte) if 0x21 <= byte < 0x7F and byte not in b'\\"#' else f"\\{byte:03o}" for byte in path.encode())
