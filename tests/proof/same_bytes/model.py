"""One bucket as a dictionary: what keys and paths there are after each operation, by the rules of `docs/NAMESPACE.md`.

Objects are named by keys; two names of one file share an `Object`. Directories are implied by keys, or explicit once files had a hand in them.
Everything that a face shows is derived, so the model cannot contradict itself.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

NAME_BYTES_MAX = 255
KEYS = ".keys"
CUT = "%~"
COOKIE_DIGITS = 16


class Refused(Exception):
    """The operation fails, with this errno where files ask for it."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


@dataclass(eq=False)
class Object:
    content: bytes
    metadata: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    mode: int = 0o644


def parent_of(path: str) -> str:
    return path.rpartition("/")[0]


def is_name(part: str, *, top: bool) -> bool:
    """Can a file be called so?"""
    return part not in ("", ".", "..") and len(part.encode()) <= NAME_BYTES_MAX and not (top and part == KEYS)


def aside_name(key: str) -> str:
    """How `.keys` calls a key; where the name is cut, without the digits at its end."""
    name = key.replace(".", "%2E") if key in (".", "..") else quote(key, safe="")
    if len(name) <= NAME_BYTES_MAX:
        return name
    cut = name[: NAME_BYTES_MAX - len(CUT) - COOKIE_DIGITS]
    escape = cut.rfind("%", len(cut) - 2)
    return (cut if escape < 0 else cut[:escape]) + CUT


def directories_of(key: str) -> list[str]:
    """The directories on the way to a key, as far as files can follow; a marker's is among them."""
    found: list[str] = []
    for index, part in enumerate(key.split("/")[:-1]):
        if not is_name(part, top=index == 0):
            break
        found.append("/".join([*found[-1:], part]))
    return found


class Model:
    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.symlinks: dict[str, str] = {}
        self.explicit: set[str] = set()

    # What faces show
    def directories(self) -> set[str]:
        return set().union(*(directories_of(key) for key in (*self.objects, *self.symlinks, *(path + "/" for path in self.explicit))))

    def has_path(self, key: str) -> bool:
        parts = key.split("/")
        return all(is_name(part, top=index == 0) for index, part in enumerate(parts)) and key not in self.directories()

    def paths(self) -> dict[str, Object]:
        return {key: found for key, found in self.objects.items() if self.has_path(key)}

    def aside(self) -> dict[str, Object]:
        """By the name in `.keys`; a marker without content is its directory."""
        hidden = {key: found for key, found in self.objects.items() if not self.has_path(key) and not self._is_mere_marker(key, found)}
        return {aside_name(key): found for key, found in hidden.items()}

    def links(self) -> dict[str, str]:
        """Targets of symlinks, by path; what lies behind a directory of its name is in `.keys`."""
        hidden = self.directories()
        return {f"{KEYS}/{aside_name(path)}" if path in hidden else path: target for path, target in self.symlinks.items()}

    def _is_mere_marker(self, key: str, found: Object) -> bool:
        return key.endswith("/") and not found.content and key[:-1] in self.directories()

    def children(self, directory: str) -> set[str]:
        """Everything in a directory, markers and what has no path included."""
        inside = directory + "/" if directory else ""
        names = [*self.objects, *self.symlinks, *(name + "/" for name in self.explicit)]
        return {name for name in names if name.startswith(inside) and name != inside}

    # What S3 does
    def put(self, key: str, content: bytes, metadata: dict[str, str], tags: dict[str, str]) -> None:
        old = self.objects.get(key)
        self.symlinks.pop(key, None)
        self.objects[key] = Object(content, dict(metadata), dict(tags), old.mode if old else 0o644)

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def copy(self, source: str, key: str) -> None:
        found = self.objects[source]
        self.put(key, found.content, found.metadata, found.tags)

    def tag(self, key: str, tags: dict[str, str]) -> None:
        self.objects[key].tags = dict(tags)

    # What files do
    def _look(self, path: str) -> Object | str | None:
        """None: a directory. A symlink is its target. Raises Refused."""
        above = parent_of(path)
        if above and above not in self.directories():
            # Symlinks lead nowhere here.
            raise Refused(errno.ENOTDIR if above in self.objects and above not in self.symlinks else errno.ENOENT)
        if path in self.directories():
            return None
        if path in self.symlinks:
            return self.symlinks[path]
        if path in self.objects:
            return self.objects[path]
        raise Refused(errno.ENOENT)

    def _is_there(self, path: str) -> bool:
        try:
            self._look(path)
        except Refused as refused:
            if refused.number != errno.ENOENT or (parent_of(path) and parent_of(path) not in self.directories()):
                raise
            return False
        return True

    def _claim(self, directory: str) -> None:
        """Files changed it: it stays without keys."""
        if directory:
            self.explicit.add(directory)

    def file(self, path: str) -> Object:
        found = self._look(path)
        if found is None:
            raise Refused(errno.EISDIR)
        assert isinstance(found, Object), "the operations leave symlinks alone"
        return found

    def write(self, path: str, content: bytes) -> None:
        """As open(2) with O_CREAT and O_TRUNC does, and a write."""
        if self._is_there(path):
            self.file(path).content = content
        else:
            self._claim(parent_of(path))
            self.objects[path] = Object(content)

    def lay(self, path: str, offset: int, piece: bytes) -> None:
        found = self.file(path)
        content = found.content.ljust(offset, b"\0")
        found.content = content[:offset] + piece + content[offset + len(piece) :]

    def truncate(self, path: str, size: int) -> None:
        found = self.file(path)
        found.content = found.content[:size].ljust(size, b"\0")

    def chmod(self, path: str, mode: int) -> None:
        self.file(path).mode = mode

    def set_metadata(self, path: str, name: str, value: str) -> None:
        self.file(path).metadata[name] = value

    def unlink(self, path: str) -> None:
        if self._look(path) is None:
            raise Refused(errno.EISDIR)
        self._claim(parent_of(path))
        if self.symlinks.pop(path, None) is None:
            del self.objects[path]

    def unlink_aside(self, name: str) -> None:
        self.delete(unquote(name))

    def mkdir(self, path: str) -> None:
        if self._is_there(path):
            raise Refused(errno.EEXIST)
        self._claim(parent_of(path))
        self.explicit.add(path)

    def rmdir(self, path: str) -> None:
        if self._look(path) is not None:
            raise Refused(errno.ENOTDIR)
        if self.children(path):
            raise Refused(errno.ENOTEMPTY)
        self._claim(parent_of(path))
        self.explicit.discard(path)
        self.objects.pop(path + "/", None)

    def symlink(self, path: str, target: str) -> None:
        if self._is_there(path):
            raise Refused(errno.EEXIST)
        self._claim(parent_of(path))
        self.symlinks[path] = target

    def link(self, path: str, new: str) -> None:
        found = self._look(path)
        if self._is_there(new):
            raise Refused(errno.EEXIST)
        if found is None:
            raise Refused(errno.EPERM)
        assert isinstance(found, Object)
        self._claim(parent_of(new))
        self.objects[new] = found

    def rename(self, old: str, new: str) -> None:
        moved = self._look(old)
        if new.startswith(old + "/") and moved is None:
            raise Refused(errno.EINVAL)
        target = self._look(new) if self._is_there(new) else old
        if old == new or (isinstance(moved, Object) and target is moved):
            return
        if target is None and old.startswith(new + "/"):
            raise Refused(errno.ENOTEMPTY)
        if moved is None and target is not None and target is not old:
            raise Refused(errno.ENOTDIR)
        if moved is not None and target is None:
            raise Refused(errno.EISDIR)
        if target is None:
            self.rmdir(new)
        self._claim(parent_of(old))
        self._claim(parent_of(new))
        if moved is None:
            self._move_below(old, new)
            return
        self.symlinks.pop(new, None)
        self.objects.pop(new, None)
        if old in self.symlinks:
            self.symlinks[new] = self.symlinks.pop(old)
        else:
            self.objects[new] = self.objects.pop(old)

    def _move_below(self, old: str, new: str) -> None:
        """A directory with everything in it, whatever its names."""

        def moved(name: str) -> str:
            return new + name[len(old) :] if name == old or name.startswith(old + "/") else name

        behind = self.objects.pop(old, None), self.symlinks.pop(old, None)
        is_explicit = old in self.explicit
        self.objects = {moved(key): found for key, found in self.objects.items()}
        self.symlinks = {moved(key): found for key, found in self.symlinks.items()}
        self.explicit = {moved(path) for path in self.explicit}
        if is_explicit:
            self.explicit.add(new)
        # What lay behind the directory keeps its name.
        if behind[0] is not None:
            self.objects[old] = behind[0]
        if behind[1] is not None:
            self.symlinks[old] = behind[1]
