"""XML in and out: a bounded parser for request bodies, and string building for responses.

The parser refuses document types and entities (so nothing expands), and bounds bytes, depth and element count before anything is built.
Namespaces are dropped: clients send S3 documents with and without one.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator
from functools import lru_cache
from xml.parsers import expat

from protocols.s3.errors import S3Error

DEPTH_MAX = 8
ELEMENTS_MAX = 100_000
"""A CompleteMultipartUpload of 10,000 parts with every field has 80,001."""
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'


class Node:
    __slots__ = ("children", "name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.children: list[Node] = []

    def child(self, name: str) -> Node | None:
        for node in self.children:
            if node.name == name:
                return node
        return None

    def all(self, name: str) -> Iterator[Node]:
        return (node for node in self.children if node.name == name)

    def value(self, name: str) -> str | None:
        node = self.child(name)
        return None if node is None else node.text


class _Builder:
    def __init__(self) -> None:
        self.root: Node | None = None
        self.stack: list[Node] = []
        self.count = 0

    def start(self, name: str, _attributes: object) -> None:
        self.count += 1
        if self.count > ELEMENTS_MAX or len(self.stack) >= DEPTH_MAX:
            raise S3Error("MalformedXML")
        node = Node(name.rpartition(" ")[2])
        if self.stack:
            self.stack[-1].children.append(node)
        else:
            self.root = node
        self.stack.append(node)

    def end(self, _name: str) -> None:
        self.stack.pop()

    def data(self, text: str) -> None:
        self.stack[-1].text += text

    def forbid(self, *_: object) -> None:
        raise S3Error("MalformedXML")


def parse(body: bytes, root: str) -> Node:
    """Raises MalformedXML unless the document's root element has that name."""
    builder = _Builder()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = builder.forbid
    parser.EntityDeclHandler = builder.forbid
    parser.buffer_text = True
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, LookupError, ValueError):
        raise S3Error("MalformedXML") from None
    if builder.root is None or builder.root.name != root:
        raise S3Error("MalformedXML")
    return builder.root


_CONTROL = {code: f"&#x{code:x};" for code in [*range(1, 0x20), 0x7F] if code not in (0x09,)}
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", **{chr(code): text for code, text in _CONTROL.items()}})
_LENIENT = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        **{chr(code): "\ufffd" for code in range(0x20) if code not in (9, 10, 13)},
        "\ufffe": "\ufffd",
        "\uffff": "\ufffd",
    }
)


def escape(text: str) -> str:
    """Exact: control characters become references, which XML 1.0 parsers refuse. Clients that meet such keys ask for encoding-type=url."""
    return text.translate(_ESCAPES)


def escape_lenient(text: str) -> str:
    """For text that only informs: what XML cannot carry becomes a replacement character."""
    return text.encode("utf-8", "replace").decode().translate(_LENIENT)


_ILLEGAL = frozenset([*map(chr, range(9)), "\x0b", "\x0c", *map(chr, range(0x0E, 0x20)), "\ufffe", "\uffff"])


def is_legal(text: str) -> bool:
    """XML 1.0 can carry it."""
    return _ILLEGAL.isdisjoint(text)


def element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def optional(name: str, text: str | None) -> str:
    return "" if text is None else element(name, text)


def document(root: str, inner: str) -> bytes:
    return f'{HEADER}<{root} xmlns="{NAMESPACE}">{inner}</{root}>'.encode("utf-8", "surrogateescape")


def error_document(error: S3Error, resource: str, request_id: str) -> bytes:
    details = "".join(f"<{name}>{escape_lenient(text)}</{name}>" for name, text in error.details.items())
    inner = f"<Code>{error.code}</Code><Message>{escape_lenient(error.message)}</Message>{details}"
    inner += f"<Resource>{escape_lenient(resource)}</Resource><RequestId>{escape_lenient(request_id)}</RequestId>"
    return f"{HEADER}<Error>{inner}</Error>".encode()


def iso_time(modified_ns: int) -> str:
    milliseconds = modified_ns // 1_000_000
    return f"{_iso_seconds(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _iso_seconds(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=1024)
def http_time(seconds: int) -> str:
    at = time.gmtime(seconds)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02d} {_MONTHS[at.tm_mon - 1]} {at.tm_year} {at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} GMT"
    )


def parse_http_time(text: str) -> int | None:
    """Seconds of an IMF-fixdate, RFC 850 or asctime date; None if it is none of these (the header is then ignored)."""
    for form in ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"):
        try:
            return calendar.timegm(time.strptime(text.strip(), form))
        except ValueError:
            continue
    return None
