"""DeleteObjects: up to 1,000 keys, each for itself."""

from __future__ import annotations

from dataclasses import dataclass

from element_store.types import Condition, Deletion, StoreError
from protocols.s3 import xml
from protocols.s3.conditional import parse_etags
from protocols.s3.context import Context
from protocols.s3.errors import S3Error, from_store
from protocols.s3.naming import check_key
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.snapshot_keys import is_below, refusal
from protocols.s3.versions import parse_version, version_text

KEYS_MAX = 1000


@dataclass(slots=True)
class _Entry:
    key: str
    version: str | None
    condition: Condition | None
    version_id: int | None = None
    error: S3Error | None = None

    @property
    def names(self) -> str:
        return xml.element("Key", self.key) + xml.optional("VersionId", self.version)


def _entry(node: xml.Node) -> _Entry:
    key = node.value("Key")
    if not key:
        raise S3Error("MalformedXML")
    version, etag = node.value("VersionId") or None, node.value("ETag")
    entry = _Entry(key, version, Condition(if_match=parse_etags(etag)) if etag else None)
    try:
        check_key(key.encode())
        if version is not None:
            entry.version_id = parse_version(version)
        if node.child("LastModifiedTime") is not None or node.child("Size") is not None:
            raise S3Error("NotImplemented", "Deleting on a condition of time or size is not implemented.")
    except S3Error as error:
        entry.error = error
    return entry


def parse_delete(body: bytes) -> tuple[list[_Entry], bool]:
    """The entries, and whether successes are to be left out. Raises MalformedXML."""
    root = xml.parse(body, "Delete")
    entries = [_entry(node) for node in root.all("Object")]
    if not 1 <= len(entries) <= KEYS_MAX:
        raise S3Error("MalformedXML")
    return entries, (root.value("Quiet") or "").strip().lower() == "true"


def _error(entry: _Entry, error: S3Error) -> str:
    return f"<Error>{entry.names}<Code>{error.code}</Code>{xml.element('Message', error.message)}</Error>"


def _deleted(entry: _Entry, deletion: Deletion) -> str:
    marker = ""
    if deletion.marker:
        marker = f"<DeleteMarker>true</DeleteMarker><DeleteMarkerVersionId>{version_text(deletion.version_id)}</DeleteMarkerVersionId>"
    return f"<Deleted>{entry.names}{marker}</Deleted>"


async def run(context: Context, request: Request) -> Response:
    entries, quiet = await Payload(request, context.config).document(parse_delete)
    for entry in entries:
        if request.shows_snapshots and is_below(entry.key.encode()):
            entry.error = refusal()
    sound = [entry for entry in entries if entry.error is None]
    results = await context.store.delete_many(
        request.bucket,
        [entry.key.encode() for entry in sound],
        [entry.condition for entry in sound],
        versions=[entry.version_id for entry in sound],
        versioning=request.versioning,
    )
    deletions = {}
    for entry, result in zip(sound, results, strict=True):
        if isinstance(result, StoreError):
            entry.error = from_store(result)
        elif isinstance(result, Exception):
            entry.error = S3Error("InternalError")
        else:
            deletions[id(entry)] = result
    answers = []
    for entry in entries:
        if entry.error is not None:
            answers.append(_error(entry, entry.error))
        elif not quiet:
            answers.append(_deleted(entry, deletions[id(entry)]))
    return xml_response("DeleteResult", "".join(answers))
