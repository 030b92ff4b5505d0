"""CompleteMultipartUpload: the listed parts become one object, at once.

Asking again after success answers the same as long as the object is still what these parts make: a client that lost the answer may retry.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from element_store.types import Element, Invalid, NotFound, Part
from protocols.s3 import checksums, xml
from protocols.s3.checksums import Algorithm
from protocols.s3.conditional import write_condition
from protocols.s3.context import Context
from protocols.s3.errors import S3Error
from protocols.s3.metadata import naming_of
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.uploads import PART_BYTES_MIN, PART_NUMBER_MAX, UploadChecksum, all_parts, checksum_of, guarded_upload, upload_id
from protocols.s3.versions import new_version_headers

THREAD_PARTS_MIN = 64
"""Combining checksums of more parts than this takes milliseconds: done in a thread."""


@dataclass(slots=True)
class _Listed:
    number: int
    etag: str
    node: xml.Node


def parse_parts(body: bytes) -> list[_Listed]:
    """Raises MalformedXML or InvalidPartOrder. Of entries with one number, which uploads of a resent part cause, the last counts."""
    listed: list[_Listed] = []
    for node in xml.parse(body, "CompleteMultipartUpload").all("Part"):
        number, etag = (node.value("PartNumber") or "").strip(), (node.value("ETag") or "").strip().strip('"')
        if not (number.isascii() and number.isdigit() and len(number) <= 5 and etag):
            raise S3Error("MalformedXML")
        part = _Listed(int(number), etag, node)
        if listed and part.number < listed[-1].number:
            raise S3Error("InvalidPartOrder")
        if listed and part.number == listed[-1].number:
            listed.pop()
        listed.append(part)
    if not 1 <= len(listed) <= PART_NUMBER_MAX:
        raise S3Error("MalformedXML")
    return listed


def _etag_digest(listed: Sequence[_Listed]) -> bytes:
    try:
        return hashlib.md5(b"".join([bytes.fromhex(part.etag) for part in listed]), usedforsecurity=False).digest()
    except ValueError:
        raise S3Error("InvalidPart") from None


def _choose(listed: Sequence[_Listed], held: Mapping[int, Part], checksum: UploadChecksum | None) -> list[Part]:
    """The parts that the request names. Raises InvalidPart or EntityTooSmall."""
    chosen = []
    for asked in listed:
        part = held.get(asked.number)
        if part is None or part.etag != asked.etag:
            raise S3Error("InvalidPart", details={"PartNumber": str(asked.number), "ETag": asked.etag[:64]})
        _check_part_checksum(asked, part, checksum)
        chosen.append(part)
    for part in chosen[:-1]:
        if part.size < PART_BYTES_MIN:
            sizes = {
                "ProposedSize": str(part.size),
                "MinSizeAllowed": str(PART_BYTES_MIN),
                "PartNumber": str(part.number),
                "ETag": part.etag,
            }
            raise S3Error("EntityTooSmall", details=sizes)
    return chosen


def _check_part_checksum(asked: _Listed, part: Part, checksum: UploadChecksum | None) -> None:
    for node in asked.node.children:
        algorithm = checksums.BY_ELEMENT.get(node.name)
        if algorithm is None:
            continue
        held = part.digests.get(algorithm.store_name)
        if held is None and checksum is None:
            continue
        if held is None or checksums.encode(held) != node.text.strip():
            raise S3Error("InvalidPart", details={"PartNumber": str(part.number), "ETag": part.etag})


def _combined(checksum: UploadChecksum, parts: Sequence[Part]) -> bytes:
    name = checksum.algorithm.store_name
    if checksum.composite:
        return checksums.composite_digest(checksum.algorithm, [part.digests[name] for part in parts])
    return checksums.combine(checksum.algorithm, [(part.digests[name], part.size) for part in parts])


def _check_announced(announced: tuple[Algorithm, str] | None, checksum: UploadChecksum | None, raw: bytes, parts: int) -> None:
    """The object's checksum that the request may carry; a composite one with or without its count."""
    if announced is None:
        return
    algorithm, text = announced
    if checksum is None or algorithm is not checksum.algorithm:
        raise S3Error("InvalidRequest", "The checksum of the request is not of the kind that the upload was created with.")
    if text not in (checksums.encode(raw), checksums.shown(raw, checksum.composite, parts)):
        raise S3Error("BadDigest", f"The {algorithm.wire_name} you specified did not match the calculated checksum.")


def _check_total(request: Request, parts: Sequence[Part], bytes_max: int) -> None:
    total = sum(part.size for part in parts)
    if total > bytes_max:
        raise S3Error("EntityTooLarge", details={"ProposedSize": str(total), "MaxSizeAllowed": str(bytes_max)})
    announced = request.header(b"x-amz-mp-object-size")
    if announced is not None and announced != str(total):
        raise S3Error("InvalidRequest", "The provided x-amz-mp-object-size does not match what was uploaded.")


async def run(context: Context, request: Request) -> Response:
    identity = upload_id(request)
    condition = write_condition(request.headers)
    announced = checksums.of_headers(request.headers)
    listed = await Payload(request, context.config, checksum_of_body=False).document(parse_parts)
    etag_digest = _etag_digest(listed)
    try:
        info = await guarded_upload(context, request, identity)
    except NotFound:
        return await _already_complete(context, request, f"{etag_digest.hex()}-{len(listed)}")
    checksum = checksum_of(info.extra)
    parts = _choose(listed, await all_parts(context, request, info), checksum)
    _check_total(request, parts, context.config.object_bytes_max)
    digests: dict[str, bytes] = {"md5": etag_digest}
    if checksum is not None:
        many = len(parts) >= THREAD_PARTS_MIN
        raw = await asyncio.to_thread(_combined, checksum, parts) if many else _combined(checksum, parts)
        _check_announced(announced, checksum, raw, len(parts))
        digests[checksum.algorithm.store_name] = raw
    else:
        _check_announced(announced, None, b"", len(parts))
    try:
        element = await context.store.complete_upload(
            request.bucket,
            request.key,
            identity,
            [(part.number, part.etag) for part in parts],
            etag_digest=etag_digest,
            digests=digests,
            composite=checksum is not None and checksum.composite,
            condition=condition,
            versioning=request.versioning,
            naming=naming_of(context.identity(request)),
        )
    except Invalid:
        # A part was replaced since it was looked up.
        raise S3Error("InvalidPart") from None
    return _answer(request, element)


async def _already_complete(context: Context, request: Request, etag: str) -> Response:
    try:
        element = await context.store.lookup(request.bucket, request.key)
    except NotFound:
        raise S3Error("NoSuchUpload", details={"UploadId": request.query["uploadId"]}) from None
    if element.etag != etag:
        raise S3Error("NoSuchUpload", details={"UploadId": request.query["uploadId"]})
    return _answer(request, element)


def _answer(request: Request, element: Element) -> Response:
    host = (request.header(b"host") or "").encode("ascii", "replace").decode()
    inner = xml.element("Location", f"{request.scheme}://{host}{request.resource}")
    inner += f"<Bucket>{request.bucket}</Bucket>{xml.element('Key', request.key.decode())}" + xml.element("ETag", f'"{element.etag}"')
    found = checksums.kept(element.digests)
    if found is not None:
        algorithm, raw = found
        kind = checksums.COMPOSITE if element.composite else checksums.FULL_OBJECT
        inner += xml.element(algorithm.element, checksums.shown(raw, element.composite, len(element.part_sizes)))
        inner += f"<ChecksumType>{kind}</ChecksumType>"
    return xml_response("CompleteMultipartUploadResult", inner, new_version_headers(element.version_id))
