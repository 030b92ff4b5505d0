"""Prints the configuration annotated: every setting, its default and what it is for. `deploy/trefoil.toml` is this text."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from server.config import Section, Settings, item_section

HEAD = """\
# Trefoil's configuration, printed by `trefoil config init`.
# Every value below is the default: take away the "#" before a key to change it.
# The environment overrides this file (TREFOIL_DATA, TREFOIL_S3__LISTEN, ... lists with commas), flags override both.
"""
EXAMPLES: dict[str, Any] = {
    "data": ["/dev/disk/by-id/nvme-first", "/dev/disk/by-id/nvme-second"],
    "state": "/var/lib/trefoil",
    "s3.certificate": "/etc/trefoil/s3.crt",
    "s3.private_key": "/etc/trefoil/s3.key",
    "file.mount": "/srv/trefoil",
    "nfs.portmapper": "0.0.0.0:111",
    "nfs.export.path": "/bucket",
    "nfs.export.clients": ["10.1.0.0/16"],
    "block.advertise": ["10.1.0.1:4420"],
    "snapshot.hooks": "/etc/trefoil/hooks",
    "identity.uid": 1000,
    "identity.gid": 1000,
    "admin.certificate": "/etc/trefoil/admin.crt",
    "admin.private_key": "/etc/trefoil/admin.key",
}
"""Shown where the default is empty or depends on who asks."""
WIDTH = 118


def annotated() -> str:
    lines = [HEAD]
    sections = []
    for name, info in Settings.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            sections.append((name, kind))
        else:
            lines.append(_entry(name, name, info))
    for name, section in sections:
        lines.append(f"[{name}]")
        items = [key for key, info in section.model_fields.items() if item_section(info.annotation)]
        lines += [_entry(key, f"{name}.{key}", info) for key, info in section.model_fields.items() if key not in items]
        for key in items:
            lines += _list_of_sections(f"{name}.{key}", section.model_fields[key])
    return "\n".join(lines)


def _list_of_sections(path: str, info: FieldInfo) -> list[str]:
    """One of them, commented out like its keys."""
    section = item_section(info.annotation)
    assert section is not None
    head = f'{_comment(info)}\n# One [[{path}]] for each; take its "#" away too.\n#[[{path}]]'
    return [head, *(_entry(key, f"{path}.{key}", item) for key, item in section.model_fields.items())]


def _comment(info: FieldInfo) -> str:
    return textwrap.fill(info.description or "", WIDTH, initial_indent="# ", subsequent_indent="# ")


def _entry(key: str, path: str, info: FieldInfo) -> str:
    value = EXAMPLES.get(path, info.default)
    return f"{_comment(info)}\n#{key} = {_toml(value)}\n"


def _toml(value: Any) -> str:
    """JSON's strings, numbers, booleans and lists are TOML's."""
    return json.dumps(str(value) if isinstance(value, Path) else value)
