"""The faces of one bucket: what each can do to it, and what each shows of it in full.

A face of files is a directory: a FUSE mount, or the same bucket mounted by NFS from a kernel that has a client. To judge another one, pass its
directory to `run.Subject`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.proof.s3 import S3Client
from tests.proof.same_bytes.model import COOKIE_DIGITS, CUT, KEYS, Model, Object

META = "x-amz-meta-"
XATTR_META = "user.s3.meta."
XATTR_TAG = "user.s3.tag."


@dataclass(frozen=True)
class Seen:
    """One file or object as a face shows it. `mode`: where the face knows it."""

    content: bytes
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
    mode: int | None = None


@dataclass(frozen=True)
class View:
    """All of a bucket as a face shows it."""

    files: Mapping[str, Seen]
    directories: frozenset[str] = frozenset()
    symlinks: Mapping[str, str] = field(default_factory=dict)


def first_difference(expected: View, found: View) -> str | None:
    for name, wanted, got in (
        ("files", set(expected.files), set(found.files)),
        ("directories", set(expected.directories), set(found.directories)),
        ("symlinks", set(expected.symlinks.items()), set(found.symlinks.items())),
    ):
        if wanted != got:
            return f"{name}: {sorted(map(str, wanted - got))} are missing, {sorted(map(str, got - wanted))} should not be there"
    for key, seen in expected.files.items():
        if seen != found.files[key]:
            return f"{key!r}: {found.files[key]} should be {seen}"
    return None


class Face(Protocol):
    def expected(self, model: Model) -> View:
        """What the face has to show."""
        ...

    def look(self) -> View: ...


class S3Face:
    def __init__(self, client: S3Client) -> None:
        self.client = client
        self._etags: dict[str, tuple[str, bytes]] = {}

    def expected(self, model: Model) -> View:
        return View({key: Seen(found.content, found.metadata, found.tags) for key, found in model.objects.items()})

    def look(self) -> View:
        listed = self.client.list()
        assert [key for key, _ in listed] == sorted((key for key, _ in listed), key=str.encode), "the listing is out of order"
        files = {key: self._get(key) for key, _ in listed}
        assert {key: len(seen.content) for key, seen in files.items()} == dict(listed), "sizes of the listing are wrong"
        return View(files)

    def _get(self, key: str) -> Seen:
        answer = self.client.request("GET", key)
        etag, (before, content) = answer.headers["etag"], self._etags.get(key, ("", b""))
        assert before != etag or content == answer.body, f"{key!r}: other content under the same ETag"
        self._etags[key] = (etag, answer.body)
        metadata = {name.removeprefix(META): value for name, value in answer.headers.items() if name.startswith(META)}
        return Seen(answer.body, metadata, self._tags(key) if "x-amz-tagging-count" in answer.headers else {})

    def _tags(self, key: str) -> dict[str, str]:
        body = self.client.request("GET", key, {"tagging": ""}).body.decode()
        pairs = [piece.partition("</Key>") for piece in body.split("<Key>")[1:]]
        return {name: rest.partition("<Value>")[2].partition("</Value>")[0] for name, _, rest in pairs}


class FilesFace:
    def __init__(self, root: Path) -> None:
        self.root = root

    def at(self, path: str) -> Path:
        return self.root / path

    def expected(self, model: Model) -> View:
        named = {**model.paths(), **{f"{KEYS}/{name}": found for name, found in model.aside().items()}}
        return View({path: _seen(found) for path, found in named.items()}, frozenset(model.directories()), model.links())

    def look(self) -> View:
        files: dict[str, Seen] = {}
        directories: set[str] = set()
        symlinks: dict[str, str] = {}
        left = ["", KEYS]
        while left:
            directory = left.pop()
            for entry in os.scandir(self.at(directory)):
                path = f"{directory}/{entry.name}" if directory else entry.name
                kind = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(kind):
                    directories.add(path)
                    left.append(path)
                elif stat.S_ISLNK(kind):
                    symlinks[path] = os.readlink(self.at(path))
                else:
                    files[_without_cookie(path)] = self._file(path)
        return View(files, frozenset(directories), symlinks)

    def _file(self, path: str) -> Seen:
        at = self.at(path)
        content, status = at.read_bytes(), at.stat()
        assert len(content) == status.st_size, f"{path!r}: {len(content)} bytes, and stat says {status.st_size}"
        xattrs = {name: os.getxattr(at, name).decode() for name in os.listxattr(at)}

        def named(prefix: str) -> dict[str, str]:
            return {name.removeprefix(prefix): value for name, value in xattrs.items() if name.startswith(prefix)}

        return Seen(content, named(XATTR_META), named(XATTR_TAG), stat.S_IMODE(status.st_mode))


def _without_cookie(path: str) -> str:
    return path[:-COOKIE_DIGITS] if path.startswith(KEYS + "/") and path[:-COOKIE_DIGITS].endswith(CUT) else path


def _seen(found: Object) -> Seen:
    return Seen(found.content, dict(found.metadata), dict(found.tags), found.mode)
