"""Each operation through boto3 over HTTP, with its default settings."""

from __future__ import annotations

import base64
import hashlib
import io
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.model.digests import digest
from tests.protocols.s3.server import ALICE, BOB, ROOT, Server, code_of
from tests.protocols.s3.wire import put_with_trailer

MIB = 1024 * 1024
LARGE = bytes(range(256)) * 4096 * 2


def b64(name: str, data: bytes) -> str:
    return base64.b64encode(digest(name, data)).decode()


# Buckets
def test_buckets(server: Server, s3: Any, bucket: str) -> None:
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k")
    assert code_of(s3.delete_bucket, Bucket=bucket) == "BucketNotEmpty"
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    assert code_of(s3.head_bucket, Bucket=bucket) == "404"
    assert code_of(s3.put_object, Bucket=bucket, Key="k") == "NoSuchBucket"
    assert code_of(s3.list_objects_v2, Bucket=bucket) == "NoSuchBucket"


def test_buckets_belong_to_their_maker(server: Server, s3: Any, bucket: str) -> None:
    bob, root = server.client(BOB), server.client(ROOT)
    s3.put_object(Bucket=bucket, Key="k", Body=b"alice")
    assert code_of(bob.create_bucket, Bucket=bucket) == "BucketAlreadyExists"
    for call in (bob.list_objects_v2, bob.delete_bucket, bob.get_bucket_acl):
        assert code_of(call, Bucket=bucket) == "AccessDenied"
    for call in (bob.get_object, bob.put_object, bob.delete_object):
        assert code_of(call, Bucket=bucket, Key="k") == "AccessDenied"
    bob.create_bucket(Bucket=f"{bucket}-bob")
    assert code_of(bob.copy_object, Bucket=f"{bucket}-bob", Key="k", CopySource=f"{bucket}/k") == "AccessDenied"
    assert bucket not in [found["Name"] for found in bob.list_buckets()["Buckets"]]
    assert {bucket, f"{bucket}-bob"} <= {found["Name"] for found in root.list_buckets()["Buckets"]}
    assert root.get_object(Bucket=bucket, Key="k")["Body"].read() == b"alice"


def test_list_buckets_in_pages(s3: Any, bucket: str) -> None:
    for name in "abc":
        s3.create_bucket(Bucket=f"{bucket}-page-{name}")
    pages = s3.get_paginator("list_buckets").paginate(Prefix=f"{bucket}-page-", PaginationConfig={"PageSize": 2})
    assert [[found["Name"] for found in page["Buckets"]] for page in pages] == [
        [f"{bucket}-page-a", f"{bucket}-page-b"],
        [f"{bucket}-page-c"],
    ]


def test_location_is_remembered(server: Server, bucket: str) -> None:
    client = server.client()
    client.create_bucket(Bucket=f"{bucket}-eu", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert client.get_bucket_location(Bucket=f"{bucket}-eu")["LocationConstraint"] == "eu-west-1"


# Objects
@pytest.mark.parametrize("size", [0, 1, 4096, 128 * 1024, 128 * 1024 + 1, len(LARGE)])
def test_put_and_get(s3: Any, bucket: str, size: int) -> None:
    body = LARGE[:size]
    etag = s3.put_object(Bucket=bucket, Key="dir/k ü+%&?#.txt", Body=body)["ETag"]
    assert etag == f'"{hashlib.md5(body).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="dir/k ü+%&?#.txt")
    assert got["Body"].read() == body
    assert (got["ETag"], got["ContentLength"], got["ContentType"]) == (etag, size, "binary/octet-stream")
    assert s3.head_object(Bucket=bucket, Key="dir/k ü+%&?#.txt")["ContentLength"] == size


def test_metadata_and_headers_come_back(s3: Any, bucket: str) -> None:
    given = {
        "ContentType": "text/plain; charset=utf-8",
        "CacheControl": "max-age=1",
        "ContentDisposition": 'attachment; filename="a"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "Metadata": {"one": "1", "two-words": "a b"},
    }
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **given)
    got = s3.head_object(Bucket=bucket, Key="k")
    assert {name: got[name] for name in given} == given
    overridden = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="a/b", ResponseCacheControl="no-cache")
    assert (overridden["ContentType"], overridden["CacheControl"]) == ("a/b", "no-cache")
    assert code_of(s3.put_object, Bucket=bucket, Key="k", Metadata={"a": "x" * 2048}) == "MetadataTooLarge"


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=5-", 5, 10), ("bytes=-3", 7, 10), ("bytes=2-100", 2, 10), ("bytes=-100", 0, 10)],
)
def test_ranges(s3: Any, bucket: str, header: str, start: int, stop: int) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    got = s3.get_object(Bucket=bucket, Key="k", Range=header)
    assert got["Body"].read() == b"0123456789"[start:stop]
    assert got["ContentRange"] == f"bytes {start}-{stop - 1}/10"
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206


def test_unsatisfiable_and_ignored_ranges(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    assert code_of(s3.get_object, Bucket=bucket, Key="k", Range="bytes=10-") == "InvalidRange"
    assert code_of(s3.get_object, Bucket=bucket, Key="k", Range="bytes=-0") == "InvalidRange"
    for ignored in ("bytes=3-2", "bytes=0-1,3-4", "items=0-1", "bytes=a-b"):
        assert s3.get_object(Bucket=bucket, Key="k", Range=ignored)["Body"].read() == b"0123456789"


def test_read_conditions(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    exact = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert code_of(s3.get_object, Bucket=bucket, Key="k", IfModifiedSince=exact) == "304"
    s3.get_object(Bucket=bucket, Key="k", IfModifiedSince=exact - timedelta(seconds=1), IfUnmodifiedSince=exact)
    past, future = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)
    for call in (s3.get_object, s3.head_object):
        call(Bucket=bucket, Key="k", IfMatch=etag, IfUnmodifiedSince=past)
        call(Bucket=bucket, Key="k", IfNoneMatch='"other"', IfModifiedSince=future)
        assert code_of(call, Bucket=bucket, Key="k", IfNoneMatch=etag) == "304"
        assert code_of(call, Bucket=bucket, Key="k", IfModifiedSince=future) == "304"
        assert code_of(call, Bucket=bucket, Key="k", IfMatch='"other"') in ("412", "PreconditionFailed")
        assert code_of(call, Bucket=bucket, Key="k", IfUnmodifiedSince=past) in ("412", "PreconditionFailed")


@pytest.mark.parametrize("body", [b"small", LARGE], ids=["small", "large"])
def test_write_conditions(server: Server, s3: Any, bucket: str, body: bytes) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=body, IfNoneMatch="*")["ETag"]
    assert code_of(s3.put_object, Bucket=bucket, Key="k", Body=body, IfNoneMatch="*") == "PreconditionFailed"
    assert code_of(s3.put_object, Bucket=bucket, Key="k", Body=body, IfMatch='"x"') == "PreconditionFailed"
    assert code_of(s3.put_object, Bucket=bucket, Key="absent", Body=body, IfMatch=etag) == "NoSuchKey"
    s3.put_object(Bucket=bucket, Key="k", Body=b"new", IfMatch=etag)
    assert code_of(s3.delete_object, Bucket=bucket, Key="k", IfMatch=etag) == "PreconditionFailed"
    s3.delete_object(Bucket=bucket, Key="k", IfMatch="*")


def test_digests_are_checked(s3: Any, bucket: str) -> None:
    for body in (b"small", LARGE):
        assert code_of(s3.put_object, Bucket=bucket, Key="k", Body=body, ContentMD5=b64("md5", b"other")) == "BadDigest"
        assert code_of(s3.put_object, Bucket=bucket, Key="k", Body=body, ChecksumCRC32=b64("crc32", b"other")) == "BadDigest"
    assert code_of(s3.put_object, Bucket=bucket, Key="k", Body=b"x", ContentMD5="eA==") == "InvalidDigest"
    assert code_of(s3.head_object, Bucket=bucket, Key="k") == "404"


@pytest.mark.parametrize("name", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
@pytest.mark.parametrize("body", [b"small", LARGE[: 200 * 1024]], ids=["small", "large"])
def test_checksums(s3: Any, bucket: str, name: str, body: bytes) -> None:
    value = b64(name.lower(), body)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, **{f"Checksum{name}": value})
    assert (put[f"Checksum{name}"], put["ChecksumType"]) == (value, "FULL_OBJECT")
    assert f"Checksum{name}" not in s3.head_object(Bucket=bucket, Key="k")
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")[f"Checksum{name}"] == value
    assert s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")[f"Checksum{name}"] == value
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["Checksum", "ObjectSize", "ETag", "StorageClass"])
    assert attributes["Checksum"] == {f"Checksum{name}": value, "ChecksumType": "FULL_OBJECT"}
    assert (attributes["ObjectSize"], attributes["StorageClass"]) == (len(body), "STANDARD")


# Deleting
def test_delete(s3: Any, bucket: str) -> None:
    for key in ("a", "b", "c & <d>"):
        s3.put_object(Bucket=bucket, Key=key)
    s3.delete_object(Bucket=bucket, Key="a")
    s3.delete_object(Bucket=bucket, Key="a", VersionId="null")
    assert code_of(s3.delete_object, Bucket=bucket, Key="a", VersionId="v1") == "NoSuchVersion"
    objects = [{"Key": "b", "VersionId": "null"}, {"Key": "c & <d>"}, {"Key": "absent"}, {"Key": "x", "VersionId": "v1"}]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert [deleted["Key"] for deleted in answer["Deleted"]] == ["b", "c & <d>", "absent"]
    assert [(error["Key"], error["Code"]) for error in answer["Errors"]] == [("x", "NoSuchVersion")]
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "b"}], "Quiet": True})
    assert "Deleted" not in quiet


def test_delete_a_thousand(s3: Any, bucket: str) -> None:
    keys = [f"{number:04d}-{'k' * 100}" for number in range(1000)]
    s3.put_object(Bucket=bucket, Key=keys[500])
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    assert [deleted["Key"] for deleted in answer["Deleted"]] == keys
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    too_many = {"Objects": [{"Key": key} for key in [*keys, "one more"]]}
    assert code_of(s3.delete_objects, Bucket=bucket, Delete=too_many) == "MalformedXML"


# Listing
def test_listings(s3: Any, bucket: str) -> None:
    for key in ("a", "b/1", "b/2", "c\x01", "d+e f"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    for call in (s3.list_objects, s3.list_objects_v2):
        answer = call(Bucket=bucket, Delimiter="/")
        assert [found["Key"] for found in answer["Contents"]] == ["a", "c\x01", "d+e f"]
        assert [found["Prefix"] for found in answer["CommonPrefixes"]] == ["b/"]
    owned = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"]
    assert owned["ID"] == "alice"
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    assert [len(page["Contents"]) for page in pages] == [2, 2, 1]
    versions = s3.list_object_versions(Bucket=bucket)["Versions"]
    assert (versions[0]["Key"], versions[0]["VersionId"], versions[0]["IsLatest"]) == ("a", "null", True)
    assert code_of(s3.list_objects_v2, Bucket=bucket, ContinuationToken="!") == "InvalidArgument"


# Copying
def test_copy(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="src", Body=LARGE, Metadata={"a": "1"}, Tagging="t=1", ContentType="a/b")["ETag"]
    copied = s3.copy_object(Bucket=bucket, Key="dst", CopySource={"Bucket": bucket, "Key": "src"})
    assert copied["CopyObjectResult"]["ETag"] == etag
    got = s3.get_object(Bucket=bucket, Key="dst")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"], got["TagCount"]) == (LARGE, {"a": "1"}, "a/b", 1)
    s3.copy_object(
        Bucket=bucket,
        Key="dst",
        CopySource=f"{bucket}/src",
        MetadataDirective="REPLACE",
        Metadata={"b": "2"},
        TaggingDirective="REPLACE",
        Tagging="u=2",
    )
    assert s3.head_object(Bucket=bucket, Key="dst")["Metadata"] == {"b": "2"}
    assert s3.get_object_tagging(Bucket=bucket, Key="dst")["TagSet"] == [{"Key": "u", "Value": "2"}]
    assert code_of(s3.copy_object, Bucket=bucket, Key="src", CopySource=f"{bucket}/src") == "InvalidRequest"
    s3.copy_object(Bucket=bucket, Key="src", CopySource=f"{bucket}/src", MetadataDirective="REPLACE", Metadata={"c": "3"})
    assert s3.head_object(Bucket=bucket, Key="src")["Metadata"] == {"c": "3"}
    assert code_of(s3.copy_object, Bucket=bucket, Key="x", CopySource=f"{bucket}/absent") == "NoSuchKey"
    assert code_of(s3.copy_object, Bucket=bucket, Key="x", CopySource=f"{bucket}/src", CopySourceIfMatch='"no"') == "PreconditionFailed"
    assert code_of(s3.copy_object, Bucket=bucket, Key="x", CopySource=f"{bucket}/src", CopySourceIfNoneMatch=etag) == "PreconditionFailed"


def test_copy_of_a_multipart_object_is_whole(s3: Any, bucket: str) -> None:
    s3.upload_fileobj(io.BytesIO(LARGE * 5), bucket, "src")
    s3.copy_object(Bucket=bucket, Key="dst", CopySource=f"{bucket}/src")
    head = s3.head_object(Bucket=bucket, Key="dst", ChecksumMode="ENABLED")
    assert head["ETag"] == f'"{hashlib.md5(LARGE * 5).hexdigest()}"'
    assert (head["ChecksumCRC32"], head["ChecksumType"]) == (b64("crc32", LARGE * 5), "FULL_OBJECT")


# Multipart
PARTS = [b"a" * (5 * MIB), b"b" * (5 * MIB), b"tail"]


def upload_parts(
    s3: Any, bucket: str, key: str, parts: list[bytes], algorithm: str | None = None, kind: str | None = None
) -> tuple[str, list[dict[str, Any]]]:
    settings: dict[str, Any] = {}
    if algorithm:
        settings["ChecksumAlgorithm"] = algorithm
    if kind:
        settings["ChecksumType"] = kind
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key, Metadata={"m": "1"}, **settings)["UploadId"]
    listed = []
    for number, part in enumerate(parts, 1):
        own = {f"Checksum{algorithm}": b64(algorithm.lower(), part)} if algorithm else {}
        answer = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=part, **own)
        row = {"PartNumber": number, "ETag": answer["ETag"]}
        if algorithm:
            row[f"Checksum{algorithm}"] = answer[f"Checksum{algorithm}"]
        listed.append(row)
    return upload, listed


def complete(s3: Any, bucket: str, key: str, upload: str, parts: list[dict[str, Any]], **more: Any) -> Any:
    return s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **more)


def test_multipart(s3: Any, bucket: str) -> None:
    upload, parts = upload_parts(s3, bucket, "k", PARTS)
    assert [found["Key"] for found in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["k"]
    assert code_of(s3.head_object, Bucket=bucket, Key="k") == "404"
    listed = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload, MaxParts=2)
    assert [part["Size"] for part in listed["Parts"]] == [5 * MIB, 5 * MIB]
    assert (listed["IsTruncated"], listed["NextPartNumberMarker"]) == (True, 2)
    done = complete(s3, bucket, "k", upload, parts)
    joined = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in PARTS)).hexdigest()
    assert done["ETag"] == f'"{joined}-3"'
    assert complete(s3, bucket, "k", upload, parts)["ETag"] == done["ETag"]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"".join(PARTS)
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"m": "1"}
    second = s3.get_object(Bucket=bucket, Key="k", PartNumber=2)
    assert (second["Body"].read(), second["PartsCount"]) == (PARTS[1], 3)
    assert code_of(s3.get_object, Bucket=bucket, Key="k", PartNumber=4) == "InvalidPart"
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectParts"], MaxParts=1, PartNumberMarker=1)[
        "ObjectParts"
    ]
    assert (attributes["TotalPartsCount"], attributes["Parts"], attributes["IsTruncated"]) == (
        3,
        [{"PartNumber": 2, "Size": 5 * MIB}],
        True,
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "COMPOSITE") for name in ("CRC32", "CRC32C", "SHA1", "SHA256")]
    + [(name, "FULL_OBJECT") for name in ("CRC32", "CRC32C", "CRC64NVME")],
)
def test_multipart_checksums(s3: Any, bucket: str, name: str, kind: str) -> None:
    upload, parts = upload_parts(s3, bucket, "k", PARTS, name, kind)
    if kind == "COMPOSITE":
        value = b64(name.lower(), b"".join(digest(name.lower(), part) for part in PARTS)) + "-3"
    else:
        value = b64(name.lower(), b"".join(PARTS))
    assert (
        code_of(complete, s3=s3, bucket=bucket, key="k", upload=upload, parts=parts, **{f"Checksum{name}": b64(name.lower(), b"x")})
        == "BadDigest"
    )
    done = complete(s3, bucket, "k", upload, parts, **{f"Checksum{name}": value})
    assert (done[f"Checksum{name}"], done["ChecksumType"]) == (value, kind)
    part = s3.head_object(Bucket=bucket, Key="k", PartNumber=3, ChecksumMode="ENABLED")
    assert part[f"Checksum{name}"] == b64(name.lower(), PARTS[2])


def test_checksum_types_that_do_not_exist(s3: Any, bucket: str) -> None:
    for name, kind in (("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")):
        assert code_of(s3.create_multipart_upload, Bucket=bucket, Key="k", ChecksumAlgorithm=name, ChecksumType=kind) == "InvalidRequest"


def test_multipart_mistakes(s3: Any, bucket: str) -> None:
    upload, parts = upload_parts(s3, bucket, "k", [b"small", b"tail"])

    def attempt(rows: list[dict[str, Any]], **more: Any) -> str:
        return code_of(complete, s3=s3, bucket=bucket, key="k", upload=upload, parts=rows, **more)

    assert attempt(parts) == "EntityTooSmall"
    assert attempt(parts[::-1]) == "InvalidPartOrder"
    assert attempt([{**parts[0], "ETag": '"' + "0" * 32 + '"'}]) == "InvalidPart"
    assert attempt([{**parts[0], "PartNumber": 9}]) == "InvalidPart"
    assert attempt([{**parts[0], "ETag": "nonsense"}]) == "InvalidPart"
    assert attempt(parts[:1], IfMatch="*") == "NoSuchKey"
    assert code_of(s3.upload_part, Bucket=bucket, Key="k", UploadId=upload, PartNumber=10001, Body=b"") == "InvalidArgument"
    assert code_of(s3.upload_part, Bucket=bucket, Key="k", UploadId="absent", PartNumber=1, Body=b"") == "NoSuchUpload"
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    assert attempt(parts) == "NoSuchUpload"
    assert code_of(s3.abort_multipart_upload, Bucket=bucket, Key="k", UploadId=upload) == "NoSuchUpload"


def test_upload_part_copy(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="src", Body=LARGE * 3)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="CRC64NVME")["UploadId"]
    one = s3.upload_part_copy(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, CopySource=f"{bucket}/src")["CopyPartResult"]
    two = s3.upload_part_copy(
        Bucket=bucket, Key="k", UploadId=upload, PartNumber=2, CopySource=f"{bucket}/src", CopySourceRange="bytes=7-106"
    )["CopyPartResult"]
    done = complete(s3, bucket, "k", upload, [{"PartNumber": 1, "ETag": one["ETag"]}, {"PartNumber": 2, "ETag": two["ETag"]}])
    whole = LARGE * 3 + (LARGE * 3)[7:107]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == whole
    assert done["ChecksumCRC64NVME"] == b64("crc64nvme", whole)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    arguments = {"Bucket": bucket, "Key": "k", "UploadId": upload, "PartNumber": 1, "CopySource": f"{bucket}/src"}
    assert code_of(s3.upload_part_copy, **arguments, CopySourceRange=f"bytes=0-{len(LARGE) * 3}") == "InvalidRange"
    assert code_of(s3.upload_part_copy, **arguments, CopySourceRange="bytes=0-") == "InvalidArgument"


def test_transfer_manager(s3: Any, bucket: str) -> None:
    content = LARGE * 10
    s3.upload_fileobj(io.BytesIO(content), bucket, "k")
    got = io.BytesIO()
    s3.download_fileobj(bucket, "k", got)
    assert got.getvalue() == content


# Tagging
def test_tagging(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Tagging="b=2&a=%20x")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a", "Value": " x"}, {"Key": "b", "Value": "2"}]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "c", "Value": ""}]})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "c", "Value": ""}]
    assert s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 1
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    for tags in ([("k" * 129, "")], [("k", "v" * 257)], [(str(n), "") for n in range(11)], [("a", "1"), ("a", "2")], [("aws:x", "")]):
        document = {"TagSet": [{"Key": key, "Value": value} for key, value in tags]}
        assert code_of(s3.put_object_tagging, Bucket=bucket, Key="k", Tagging=document) == "InvalidTag"


# Configuration that is not there
@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("get_bucket_policy", "NoSuchBucketPolicy"),
        ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
        ("get_bucket_cors", "NoSuchCORSConfiguration"),
        ("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError"),
        ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
        ("get_public_access_block", "NoSuchPublicAccessBlockConfiguration"),
        ("get_bucket_ownership_controls", "OwnershipControlsNotFoundError"),
        ("get_bucket_website", "NoSuchWebsiteConfiguration"),
        ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
    ],
)
def test_not_configured(s3: Any, bucket: str, call: str, code: str) -> None:
    assert code_of(getattr(s3, call), Bucket=bucket) == code


def test_what_is_to_come_is_named(s3: Any, bucket: str) -> None:
    with pytest.raises(ClientError, match=r"NotImplemented.*encryption"):
        s3.put_object(Bucket=bucket, Key="k", ServerSideEncryption="AES256")
    s3.delete_bucket_policy(Bucket=bucket)


def test_bucket_tagging(s3: Any, bucket: str) -> None:
    assert code_of(s3.get_bucket_tagging, Bucket=bucket) == "NoSuchTagSet"
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": "1"}]
    s3.delete_bucket_tagging(Bucket=bucket)
    assert code_of(s3.get_bucket_tagging, Bucket=bucket) == "NoSuchTagSet"
    assert s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"] == "alice"


# Addressing and signatures
def test_virtual_host_style(server: Server, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"host")
    path = f"{server.url}/k"
    request = AWSRequest("GET", path, headers={"Host": f"{bucket}.s3.example.test"})
    S3SigV4Auth(Credentials(*ALICE), "s3", "us-east-1").add_auth(request)
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request("GET", "/k", headers=dict(request.headers))
        assert connection.getresponse().read() == b"host"


def fetch(url: str, method: str = "GET", data: bytes | None = None) -> tuple[int, bytes]:
    """Without the Content-Type that urllib would add: version 2 signs it."""
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.netloc, timeout=10)) as connection:
        connection.request(method, f"{parts.path}?{parts.query}", data)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned(server: Server, bucket: str, version: str) -> None:
    client = server.client(signature_version=version)
    put = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "a b/ü+"})
    assert fetch(put, "PUT", b"presigned")[0] == 200
    get = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/ü+", "ResponseContentType": "x/y"})
    assert fetch(get) == (200, b"presigned")
    assert fetch(get.replace("a%20b", "a%20c"))[0] == 403
    assert fetch(get, "DELETE")[0] == 403
    assert b"AccessDenied" in fetch(f"{server.url}/{bucket}/a")[1]


def test_signature_version_2(server: Server, bucket: str) -> None:
    client = server.client(signature_version="s3")
    client.put_object(Bucket=bucket, Key="k", Body=b"v2", Metadata={"a": "b"})
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"v2"
    assert client.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []


def test_wrong_secret_and_unknown_key(server: Server, bucket: str) -> None:
    assert code_of(server.client((ALICE[0], "wrong-secret")).list_objects_v2, Bucket=bucket) == "SignatureDoesNotMatch"
    assert code_of(server.client(("UNKNOWNUNKNOWN", "wrong-secret")).list_objects_v2, Bucket=bucket) == "InvalidAccessKeyId"


def test_any_region(server: Server, bucket: str) -> None:
    client = boto3.client(
        "s3", endpoint_url=server.url, region_name="ap-south-9", aws_access_key_id=ALICE[0], aws_secret_access_key=ALICE[1]
    )
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_unsigned_trailer_over_chunked_transfer(server: Server, s3: Any, bucket: str) -> None:
    """What SDKs send over TLS: aws-chunked inside HTTP chunks, the checksum in a trailer."""
    for body in (b"hello", LARGE):
        assert put_with_trailer(server, bucket, "k", body, b64("crc64nvme", body)).startswith(b"HTTP/1.1 200")
        head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert (head["ChecksumCRC64NVME"], head["ContentLength"]) == (b64("crc64nvme", body), len(body))
        assert "ContentEncoding" not in head
        answer = put_with_trailer(server, bucket, "k", body, b64("crc64nvme", b"other"))
        assert b"<Code>BadDigest</Code>" in answer
