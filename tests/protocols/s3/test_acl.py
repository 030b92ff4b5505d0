"""Who may read, write and change lists, as canned and granting access control lists say."""

from __future__ import annotations

from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config

from tests.protocols.s3.server import BOB, Server, code_of


def test_acl_of_the_owner(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", ACL="private")
    for acl in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="k")):
        assert acl["Owner"] == {"ID": "alice", "DisplayName": "Alice"}
        assert [(grant["Grantee"]["ID"], grant["Permission"]) for grant in acl["Grants"]] == [("alice", "FULL_CONTROL")]
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    assert code_of(s3.put_bucket_acl, Bucket=bucket, ACL="nonsense") == "InvalidArgument"


ANONYMOUS = Config(signature_version=UNSIGNED, retries={"max_attempts": 0})


def anonymous(server: Server) -> Any:
    return boto3.client("s3", endpoint_url=server.url, region_name="us-east-1", config=ANONYMOUS)


def test_public_read(server: Server, s3: Any, bucket: str) -> None:
    bob, nobody = server.client(BOB), anonymous(server)
    s3.put_object(Bucket=bucket, Key="private", Body=b"p")
    s3.put_object(Bucket=bucket, Key="open", Body=b"o", ACL="public-read")
    s3.put_object(Bucket=bucket, Key="known", Body=b"k", ACL="authenticated-read")
    assert nobody.get_object(Bucket=bucket, Key="open")["Body"].read() == b"o"
    assert bob.get_object(Bucket=bucket, Key="known")["Body"].read() == b"k"
    for key in ("private", "known", "absent"):
        assert code_of(nobody.get_object, Bucket=bucket, Key=key) == "AccessDenied"
    assert code_of(nobody.list_objects_v2, Bucket=bucket) == "AccessDenied"
    assert code_of(nobody.put_object, Bucket=bucket, Key="open", Body=b"x") == "AccessDenied"
    assert code_of(bob.put_object_acl, Bucket=bucket, Key="open", ACL="private") == "AccessDenied"
    assert code_of(bob.get_object_tagging, Bucket=bucket, Key="open") == "AccessDenied"
    assert code_of(bob.copy_object, Bucket=bucket, Key="x", CopySource=f"{bucket}/open") == "AccessDenied"
    bob.create_bucket(Bucket=f"{bucket}-bob")
    bob.copy_object(Bucket=f"{bucket}-bob", Key="x", CopySource=f"{bucket}/open")
    assert code_of(nobody.get_object, Bucket=f"{bucket}-bob", Key="x") == "AccessDenied"
    for key in ("private", "absent"):
        assert code_of(bob.copy_object, Bucket=f"{bucket}-bob", Key="x", CopySource=f"{bucket}/{key}") == "AccessDenied"
    s3.put_object_acl(Bucket=bucket, Key="open", ACL="private")
    assert code_of(nobody.get_object, Bucket=bucket, Key="open") == "AccessDenied"
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert nobody.list_objects_v2(Bucket=bucket)["KeyCount"] == 3
    assert code_of(nobody.get_object, Bucket=bucket, Key="absent") == "NoSuchKey"
    assert code_of(nobody.delete_object, Bucket=bucket, Key="open") == "AccessDenied"
    assert code_of(nobody.put_bucket_acl, Bucket=bucket, ACL="private") == "AccessDenied"
    assert code_of(nobody.list_buckets) == "AccessDenied"


def test_public_write(server: Server, s3: Any, bucket: str) -> None:
    bob, nobody = server.client(BOB), anonymous(server)
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    nobody.put_object(Bucket=bucket, Key="k", Body=b"n")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"n"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    mine = bob.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    for call in (bob.abort_multipart_upload, bob.list_parts):
        assert code_of(call, Bucket=bucket, Key="m", UploadId=upload) == "AccessDenied"
    assert code_of(nobody.abort_multipart_upload, Bucket=bucket, Key="m", UploadId=mine) == "AccessDenied"
    bob.abort_multipart_upload(Bucket=bucket, Key="m", UploadId=mine)
    bob.delete_object(Bucket=bucket, Key="k")


def test_acl_document(s3: Any, bucket: str) -> None:
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    policy = s3.get_bucket_acl(Bucket=bucket)
    assert [grant["Permission"] for grant in policy["Grants"]] == ["READ", "FULL_CONTROL"]
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    document = {"Owner": policy["Owner"], "Grants": policy["Grants"]}
    s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=document)
    assert len(s3.get_bucket_acl(Bucket=bucket)["Grants"]) == 2


def to(user: str, permission: str) -> dict[str, Any]:
    return {"Grantee": {"ID": user, "Type": "CanonicalUser"}, "Permission": permission}


def test_grants_to_users(server: Server, s3: Any, bucket: str) -> None:
    bob, nobody, owner = server.client(BOB), anonymous(server), {"ID": "alice"}
    s3.put_object(Bucket=bucket, Key="k", Body=b"k")
    s3.put_object_acl(
        Bucket=bucket, Key="k", AccessControlPolicy={"Owner": owner, "Grants": [to("alice", "FULL_CONTROL"), to("bob", "READ")]}
    )
    assert bob.get_object(Bucket=bucket, Key="k")["Body"].read() == b"k"
    for refused in (nobody.get_object, bob.get_object_acl, bob.delete_object):
        assert code_of(refused, Bucket=bucket, Key="k") == "AccessDenied"
    s3.put_object_acl(Bucket=bucket, Key="k", AccessControlPolicy={"Owner": owner, "Grants": [to("bob", "FULL_CONTROL")]})
    shown = bob.get_object_acl(Bucket=bucket, Key="k")
    assert [(grant["Grantee"]["ID"], grant["Grantee"]["DisplayName"], grant["Permission"]) for grant in shown["Grants"]] == [
        ("bob", "Bob", "FULL_CONTROL")
    ]
    assert shown["Owner"]["ID"] == "alice"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"k"
    bob.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    assert code_of(bob.get_object, Bucket=bucket, Key="k") == "AccessDenied"


def test_grants_of_a_bucket(server: Server, s3: Any, bucket: str) -> None:
    bob, owner = server.client(BOB), {"ID": "alice"}

    def grant(*grants: dict[str, Any]) -> None:
        s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy={"Owner": owner, "Grants": list(grants)})

    grant(to("bob", "WRITE"))
    bob.put_object(Bucket=bucket, Key="k", Body=b"k")
    for refused in (bob.list_objects_v2, bob.get_bucket_acl, bob.delete_bucket):
        assert code_of(refused, Bucket=bucket) == "AccessDenied"
    grant(to("bob", "READ"), to("bob", "READ_ACP"))
    assert bob.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    assert len(bob.get_bucket_acl(Bucket=bucket)["Grants"]) == 2
    assert code_of(bob.put_object, Bucket=bucket, Key="k", Body=b"x") == "AccessDenied"
    assert code_of(bob.put_bucket_acl, Bucket=bucket, ACL="public-read") == "AccessDenied"
    grant(to("bob", "WRITE_ACP"))
    bob.put_bucket_acl(Bucket=bucket, ACL="private")
    assert len(s3.get_bucket_acl(Bucket=bucket)["Grants"]) == 1


def test_grants_that_are_refused(s3: Any, bucket: str) -> None:
    def code(grants: list[dict[str, Any]], owner: str = "alice") -> str:
        return code_of(s3.put_bucket_acl, Bucket=bucket, AccessControlPolicy={"Owner": {"ID": owner}, "Grants": grants})

    assert code([to("nobody-knows", "READ")]) == "InvalidArgument"
    assert code([to("bob", "EVERYTHING")]) == "MalformedXML"
    assert code([to("bob", "READ")] * 101) == "MalformedXML"
    assert code([{"Grantee": {"URI": "http://example.com/", "Type": "Group"}, "Permission": "READ"}]) == "InvalidArgument"
    assert code([to("bob", "READ")], owner="bob") == "AccessDenied"
