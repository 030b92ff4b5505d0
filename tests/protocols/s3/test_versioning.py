"""Versioning as clients see it: its state, ids in answers, delete markers, and every operation that names a version."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.protocols.s3.server import code_of


def turn(s3: Any, bucket: str, status: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


@pytest.fixture
def versioned(s3: Any, bucket: str) -> str:
    turn(s3, bucket, "Enabled")
    return bucket


def put(s3: Any, bucket: str, body: bytes, key: str = "k") -> str:
    return str(s3.put_object(Bucket=bucket, Key=key, Body=body)["VersionId"])


def refused(call: Any, **arguments: Any) -> tuple[int, dict[str, str]]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    metadata = caught.value.response["ResponseMetadata"]
    return metadata["HTTPStatusCode"], metadata["HTTPHeaders"]


def test_state(s3: Any, bucket: str) -> None:
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert "VersionId" not in s3.put_object(Bucket=bucket, Key="k", Body=b"")
    for status in ("Enabled", "Suspended", "Enabled"):
        turn(s3, bucket, status)
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status
    for configuration, code in (
        ({}, "IllegalVersioningConfigurationException"),
        ({"Status": "Off"}, "MalformedXML"),
        ({"Status": "Enabled", "MFADelete": "Enabled"}, "NotImplemented"),
    ):
        assert code_of(s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration=configuration) == code


def test_every_way_to_write_answers_with_an_id(s3: Any, versioned: str) -> None:
    first = put(s3, versioned, b"first")
    copied = s3.copy_object(Bucket=versioned, Key="k", CopySource={"Bucket": versioned, "Key": "k", "VersionId": first})
    assert copied["CopySourceVersionId"] == first
    upload = s3.create_multipart_upload(Bucket=versioned, Key="k")["UploadId"]
    part = s3.upload_part_copy(
        Bucket=versioned, Key="k", UploadId=upload, PartNumber=1, CopySource={"Bucket": versioned, "Key": "k", "VersionId": first}
    )
    assert part["CopySourceVersionId"] == first
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]}
    completed = s3.complete_multipart_upload(Bucket=versioned, Key="k", UploadId=upload, MultipartUpload=parts)
    ids = [completed["VersionId"], copied["VersionId"], first]
    listed = s3.list_object_versions(Bucket=versioned)["Versions"]
    assert [(version["VersionId"], version["IsLatest"]) for version in listed] == [(ids[0], True), (ids[1], False), (ids[2], False)]
    for version in ids:
        found = s3.get_object(Bucket=versioned, Key="k", VersionId=version)
        assert (found["Body"].read(), found["VersionId"]) == (b"first", version)
        assert s3.head_object(Bucket=versioned, Key="k", VersionId=version)["VersionId"] == version
        attributes = s3.get_object_attributes(Bucket=versioned, Key="k", VersionId=version, ObjectAttributes=["ObjectSize"])
        assert (attributes["VersionId"], attributes["ObjectSize"]) == (version, 5)
    assert s3.head_object(Bucket=versioned, Key="k")["VersionId"] == ids[0]


def test_delete_markers(s3: Any, versioned: str) -> None:
    version = put(s3, versioned, b"data")
    deleted = s3.delete_object(Bucket=versioned, Key="k")
    marker = deleted["VersionId"]
    assert deleted["DeleteMarker"] is True
    for call in (s3.get_object, s3.head_object):
        status, headers = refused(call, Bucket=versioned, Key="k")
        assert (status, headers["x-amz-delete-marker"], headers["x-amz-version-id"]) == (404, "true", marker)
        status, headers = refused(call, Bucket=versioned, Key="k", VersionId=marker)
        assert (status, headers["x-amz-delete-marker"], headers["x-amz-version-id"]) == (405, "true", marker)
        assert "last-modified" in headers
    assert code_of(s3.put_object, Bucket=versioned, Key="k", Body=b"", IfMatch="*") == "NoSuchKey"
    source = {"Bucket": versioned, "Key": "k", "VersionId": marker}
    assert code_of(s3.copy_object, Bucket=versioned, Key="to", CopySource=source) == "InvalidRequest"
    listed = s3.list_object_versions(Bucket=versioned)
    assert [(found["VersionId"], found["IsLatest"]) for found in listed["DeleteMarkers"]] == [(marker, True)]
    assert [(found["VersionId"], found["IsLatest"]) for found in listed["Versions"]] == [(version, False)]
    assert code_of(s3.delete_bucket, Bucket=versioned) == "BucketNotEmpty"
    gone = s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
    assert (gone["DeleteMarker"], gone["VersionId"]) == (True, marker)
    assert s3.get_object(Bucket=versioned, Key="k")["Body"].read() == b"data"


def test_delete_many_versions(s3: Any, versioned: str) -> None:
    version = put(s3, versioned, b"data")
    answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k"}]})["Deleted"][0]
    marker = answer["DeleteMarkerVersionId"]
    assert (answer["DeleteMarker"], "VersionId" in answer) == (True, False)
    objects = [{"Key": "k", "VersionId": marker}, {"Key": "k", "VersionId": version}, {"Key": "k", "VersionId": "nonsense"}]
    answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": objects})
    assert answer["Deleted"] == [
        {"Key": "k", "VersionId": marker, "DeleteMarker": True, "DeleteMarkerVersionId": marker},
        {"Key": "k", "VersionId": version},
    ]
    assert [error["Code"] for error in answer["Errors"]] == ["NoSuchVersion"]
    s3.delete_bucket(Bucket=versioned)


def test_suspended_writes_the_null_version(s3: Any, versioned: str) -> None:
    kept = put(s3, versioned, b"kept")
    turn(s3, versioned, "Suspended")
    for body in (b"one", b"two"):
        assert "VersionId" not in s3.put_object(Bucket=versioned, Key="k", Body=body)
    assert [version["VersionId"] for version in s3.list_object_versions(Bucket=versioned)["Versions"]] == ["null", kept]
    assert s3.get_object(Bucket=versioned, Key="k", VersionId="null")["Body"].read() == b"two"
    deleted = s3.delete_object(Bucket=versioned, Key="k")
    assert (deleted["DeleteMarker"], deleted["VersionId"]) == (True, "null")
    s3.delete_object(Bucket=versioned, Key="k", VersionId="null")
    assert s3.get_object(Bucket=versioned, Key="k")["Body"].read() == b"kept"


def test_tags_and_lists_of_a_version(s3: Any, versioned: str) -> None:
    old, new = put(s3, versioned, b"old"), put(s3, versioned, b"new")
    tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
    assert s3.put_object_tagging(Bucket=versioned, Key="k", VersionId=old, Tagging=tags)["VersionId"] == old
    assert s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=old)["TagSet"] == tags["TagSet"]
    assert s3.get_object_tagging(Bucket=versioned, Key="k")["TagSet"] == []
    assert s3.delete_object_tagging(Bucket=versioned, Key="k", VersionId=old)["VersionId"] == old
    s3.put_object_acl(Bucket=versioned, Key="k", VersionId=old, ACL="public-read")
    grants = [len(s3.get_object_acl(Bucket=versioned, Key="k", VersionId=version)["Grants"]) for version in (old, new)]
    assert grants == [2, 1]


def test_versions_in_pages(s3: Any, versioned: str) -> None:
    expected = []
    for key in ("a", "d/x", "z"):
        ids = [put(s3, versioned, b"", key) for _ in range(3)]
        expected += [(key, version) for version in reversed(ids)]
    found: list[tuple[str, str]] = []
    prefixes: list[str] = []
    markers: dict[str, str] = {}
    while True:
        page = s3.list_object_versions(Bucket=versioned, Delimiter="/", MaxKeys=2, **markers)
        found += [(version["Key"], version["VersionId"]) for version in page.get("Versions", [])]
        prefixes += [prefix["Prefix"] for prefix in page.get("CommonPrefixes", [])]
        if not page["IsTruncated"]:
            break
        markers = {"KeyMarker": page["NextKeyMarker"]}
        if "NextVersionIdMarker" in page:
            markers["VersionIdMarker"] = page["NextVersionIdMarker"]
    assert found == [entry for entry in expected if entry[0] != "d/x"]
    assert prefixes == ["d/"]


@pytest.mark.parametrize(("version", "code"), [("", "InvalidArgument"), ("v1", "NoSuchVersion"), ("00000000000000ff", "NoSuchVersion")])
def test_versions_that_are_not_there(s3: Any, versioned: str, version: str, code: str) -> None:
    put(s3, versioned, b"")
    assert code_of(s3.get_object, Bucket=versioned, Key="k", VersionId=version) == code
    assert code_of(s3.get_object_tagging, Bucket=versioned, Key="k", VersionId=version) == code
