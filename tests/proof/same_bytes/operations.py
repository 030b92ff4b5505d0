"""Random operations: what each is to the model, to S3, and to a face of files. Few names, so that they meet."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from tests.proof.same_bytes.faces import META, XATTR_META, FilesFace, S3Face
from tests.proof.same_bytes.model import CUT, Model

LONG_NAME = "n" * 255
"""The longest that a file may have."""
NAMES = ("a", "b", "c", "A", "é", "e\u0301", "a b", LONG_NAME)
ASIDE = ("a//b", "./a", "a/..", "..", ".keys/x", ".keys", "/a", "a/", "b/", "c//", LONG_NAME + "n")
OBJECTS_MAX = 14
CONTENT_BYTES_MAX = 3000
LARGE_BYTES = 200_000


@dataclass(frozen=True)
class Operation:
    """`model` raises Refused where `face` raises OSError."""

    text: str
    model: Callable[[Model], None]
    face: Callable[[], object]
    by_files: bool


class Generator:
    def __init__(self, seed: int, s3: S3Face, files: Sequence[FilesFace]) -> None:
        self._random = random.Random(seed)
        self._s3 = s3
        self._files = files

    def next(self, model: Model) -> Operation:
        while True:
            makers = [self._delete, self._unlink, self._rmdir, self._unlink_aside] if len(model.objects) >= OBJECTS_MAX else self._all()
            operation = self._random.choice(makers)(model)
            if operation is not None:
                return operation

    def _all(self) -> list[Callable[[Model], Operation | None]]:
        twice = [self._put, self._write, self._rename]
        once = [self._delete, self._copy, self._tag, self._lay, self._truncate, self._chmod, self._set_metadata, self._unlink]
        return [*twice, *twice, *once, self._unlink_aside, self._mkdir, self._rmdir, self._symlink, self._link]

    def _path(self) -> str:
        return "/".join(self._random.choices(NAMES, k=self._random.choice((1, 1, 2, 2, 3))))

    def _key(self, model: Model) -> str:
        draw = self._random.random()
        if draw < 0.3 and model.objects:
            return self._random.choice(sorted(model.objects))
        return self._random.choice(ASIDE) if draw < 0.5 else self._path()

    def _some_path(self, model: Model) -> str:
        known = sorted(model.paths()) + sorted(model.directories())
        return self._random.choice(known) if known and self._random.random() < 0.7 else self._path()

    def _content(self) -> bytes:
        return self._random.randbytes(LARGE_BYTES if self._random.random() < 0.05 else self._random.randrange(CONTENT_BYTES_MAX))

    # By S3
    def _put(self, model: Model) -> Operation:
        key, content = self._key(model), self._content()
        if key.endswith("/") and self._random.random() < 0.7:
            content = b""
        metadata = {"colour": self._random.choice(("red", "blue"))} if self._random.random() < 0.5 else {}
        tags = {"kind": str(self._random.randrange(9))} if self._random.random() < 0.3 else {}
        headers = {META + name: value for name, value in metadata.items()}
        if tags:
            headers["x-amz-tagging"] = urlencode(tags)
        return Operation(
            f"PUT {key!r} of {len(content)} bytes, {metadata}, {tags}",
            lambda at: at.put(key, content, metadata, tags),
            lambda: self._s3.client.request("PUT", key, body=content, headers=headers),
            by_files=False,
        )

    def _delete(self, model: Model) -> Operation:
        key = self._key(model)
        return Operation(f"DELETE {key!r}", lambda at: at.delete(key), lambda: self._s3.client.delete(key), by_files=False)

    def _copy(self, model: Model) -> Operation | None:
        key = self._key(model)
        source = self._random.choice(sorted(model.objects) or [key])
        if source == key:
            return None
        return Operation(
            f"COPY {source!r} to {key!r}", lambda at: at.copy(source, key), lambda: self._s3.client.copy(source, key), by_files=False
        )

    def _tag(self, model: Model) -> Operation | None:
        if not model.objects:
            return None
        key, value = self._random.choice(sorted(model.objects)), str(self._random.randrange(9))
        body = f"<Tagging><TagSet><Tag><Key>other</Key><Value>{value}</Value></Tag></TagSet></Tagging>".encode()
        return Operation(
            f"tag {key!r} {value}",
            lambda at: at.tag(key, {"other": value}),
            lambda: self._s3.client.request("PUT", key, {"tagging": ""}, body),
            by_files=False,
        )

    # By files
    def _by_files(self, text: str, model: Callable[[Model], None], face: Callable[[FilesFace], object]) -> Operation:
        index = self._random.randrange(len(self._files))
        return Operation(f"{text}, by files {index}", model, lambda: face(self._files[index]), by_files=True)

    def _file_path(self, model: Model) -> str | None:
        """Symlinks are left alone: what they lead to is another's."""
        path = self._some_path(model)
        return None if path in model.symlinks else path

    def _write(self, model: Model) -> Operation | None:
        path, content = self._file_path(model), self._content()
        if path is None:
            return None
        return self._by_files(
            f"write {path!r}, {len(content)} bytes", lambda at: at.write(path, content), lambda f: f.at(path).write_bytes(content)
        )

    def _lay(self, model: Model) -> Operation | None:
        path, offset, piece = self._file_path(model), self._random.randrange(5000), self._random.randbytes(self._random.randrange(1, 400))
        if path is None:
            return None

        def lay(face: FilesFace) -> None:
            descriptor = os.open(face.at(path), os.O_WRONLY)
            try:
                os.pwrite(descriptor, piece, offset)
            finally:
                os.close(descriptor)

        return self._by_files(f"{len(piece)} bytes at {offset} of {path!r}", lambda at: at.lay(path, offset, piece), lay)

    def _truncate(self, model: Model) -> Operation | None:
        path, size = self._file_path(model), self._random.randrange(4000)
        if path is None:
            return None
        return self._by_files(f"truncate {path!r} to {size}", lambda at: at.truncate(path, size), lambda f: os.truncate(f.at(path), size))

    def _chmod(self, model: Model) -> Operation | None:
        path, mode = self._file_path(model), self._random.choice((0o600, 0o640, 0o755))
        if path is None or path in model.directories():
            return None
        return self._by_files(f"chmod {path!r} {mode:o}", lambda at: at.chmod(path, mode), lambda f: f.at(path).chmod(mode))

    def _set_metadata(self, model: Model) -> Operation | None:
        path, value = self._file_path(model), str(self._random.randrange(9))
        if path is None or path in model.directories():
            return None
        return self._by_files(
            f"setxattr {path!r} {value}",
            lambda at: at.set_metadata(path, "set", value),
            lambda f: os.setxattr(f.at(path), XATTR_META + "set", value.encode()),
        )

    def _unlink(self, model: Model) -> Operation:
        path = self._some_path(model)
        return self._by_files(f"unlink {path!r}", lambda at: at.unlink(path), lambda f: f.at(path).unlink())

    def _unlink_aside(self, model: Model) -> Operation | None:
        names = sorted(name for name in model.aside() if not name.endswith(CUT))
        if not names:
            return None
        name = self._random.choice(names)
        return self._by_files(f"unlink .keys/{name}", lambda at: at.unlink_aside(name), lambda f: f.at(f".keys/{name}").unlink())

    def _mkdir(self, model: Model) -> Operation:
        path = self._path()
        return self._by_files(f"mkdir {path!r}", lambda at: at.mkdir(path), lambda f: f.at(path).mkdir())

    def _rmdir(self, model: Model) -> Operation:
        path = self._some_path(model)
        return self._by_files(f"rmdir {path!r}", lambda at: at.rmdir(path), lambda f: f.at(path).rmdir())

    def _symlink(self, model: Model) -> Operation:
        path = self._path()
        return self._by_files(
            f"symlink {path!r}", lambda at: at.symlink(path, "nowhere at all"), lambda f: f.at(path).symlink_to("nowhere at all")
        )

    def _link(self, model: Model) -> Operation | None:
        path, new = self._file_path(model), self._path()
        if path is None or path in model.directories():
            return None
        return self._by_files(f"link {path!r} to {new!r}", lambda at: at.link(path, new), lambda f: os.link(f.at(path), f.at(new)))

    def _rename(self, model: Model) -> Operation:
        old, new = self._some_path(model), self._some_path(model)
        return self._by_files(f"rename {old!r} to {new!r}", lambda at: at.rename(old, new), lambda f: f.at(old).rename(f.at(new)))
