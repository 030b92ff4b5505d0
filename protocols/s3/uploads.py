"""What a multipart upload remembers between its requests, and the checks that several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from element_store.types import Part, UploadInfo
from protocols.auth.accounts import User
from protocols.s3 import checksums, xml
from protocols.s3.checksums import Algorithm
from protocols.s3.context import Context
from protocols.s3.errors import S3Error, invalid_argument
from protocols.s3.request import Request

ANONYMOUS_ID = "anonymous"
PART_BYTES_MIN = 5 * 1024 * 1024
PART_NUMBER_MAX = 10_000
PARTS_PAGE_MAX = 1000
UPLOAD_ID_LENGTH_MAX = 256


@dataclass(frozen=True, slots=True)
class UploadChecksum:
    """Kept in the upload's `extra` as `checksum` (wire name) and `checksum_type`; `explicit` where the client asked for it."""

    algorithm: Algorithm
    kind: str

    @property
    def composite(self) -> bool:
        return self.kind == checksums.COMPOSITE

    @property
    def extra(self) -> dict[str, bytes]:
        return {"checksum": self.algorithm.wire_name.encode(), "checksum_type": self.kind.encode()}


def checksum_of(extra: Mapping[str, bytes]) -> UploadChecksum | None:
    name = extra.get("checksum")
    if name is None:
        return None
    return UploadChecksum(checksums.algorithm_named(name.decode()), extra["checksum_type"].decode())


def owner_extra(request: Request) -> dict[str, bytes]:
    """A guest's upload is the guest's; others are the bucket owner's."""
    if not request.is_guest:
        return {}
    return {"owner": (request.user.id if request.user is not None else ANONYMOUS_ID).encode()}


async def upload_owner(context: Context, request: Request, info: UploadInfo) -> User:
    return await context.owner_user(info.extra.get("owner", request.owner.encode()).decode())


async def guarded_upload(context: Context, request: Request, identity: str) -> UploadInfo:
    """The upload, if the caller started it or owns the bucket. Raises NotFound, AccessDenied."""
    info = await context.store.upload(request.bucket, request.key, identity)
    if request.is_guest and info.extra.get("owner") != owner_extra(request)["owner"]:
        raise S3Error("AccessDenied")
    return info


def upload_id(request: Request) -> str:
    """Raises NoSuchUpload for what can be no id."""
    text = request.query["uploadId"]
    if not 1 <= len(text) <= UPLOAD_ID_LENGTH_MAX:
        raise S3Error("NoSuchUpload", details={"UploadId": text[:UPLOAD_ID_LENGTH_MAX]})
    return text


def part_number(request: Request) -> int:
    text = request.query.get("partNumber", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= PART_NUMBER_MAX):
        raise invalid_argument("partNumber", text, f"Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive.")
    return int(text)


async def all_parts(context: Context, request: Request, info: UploadInfo) -> dict[int, Part]:
    parts: dict[int, Part] = {}
    after = 0
    while True:
        page = await context.store.list_parts(request.bucket, request.key, info.id, after=after, limit=PARTS_PAGE_MAX)
        for part in page:
            parts[part.number] = part
        if len(page) < PARTS_PAGE_MAX:
            return parts
        after = page[-1].number


def checksum_element(digests: Mapping[str, bytes]) -> str:
    found = checksums.kept(digests)
    return "" if found is None else xml.element(found[0].element, checksums.encode(found[1]))
