"""The pure parts: names, ranges, XML, conditions, checksum arithmetic, the model's own digests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.s3 import checksums, xml
from protocols.s3.conditional import parse_etags
from protocols.s3.copy_source import parse_copy_source
from protocols.s3.errors import S3Error
from protocols.s3.naming import is_bucket_name
from protocols.s3.ranges import parse_range
from protocols.s3.tags import parse_tag_header
from tests.model.digests import digest


@pytest.mark.parametrize("name", ["abc", "a-b.c", "0" * 63, "1.2.3", "xn-a"])
def test_good_bucket_names(name: str) -> None:
    assert is_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "ab", "a" * 64, "Abc", "a_b", "-abc", "abc-", ".abc", "a..b", "a.-b", "1.2.3.4", "xn--a", "abc-s3alias", "a b", "äbc", "a\n\n"],
)
def test_bad_bucket_names(name: str) -> None:
    assert not is_bucket_name(name)


@given(first=st.integers(0, 30), last=st.integers(0, 30), size=st.integers(0, 20))
def test_ranges_select_what_slices_do(first: int, last: int, size: int) -> None:
    content = bytes(range(size))
    try:
        found = parse_range(f"bytes={first}-{last}", size)
    except S3Error as error:
        if error.code != "InvalidRange" or first < size:
            raise
        return
    assert (found is None) == (last < first)
    if found is not None:
        assert content[found[0] : found[1]] == content[first : last + 1]


@given(st.text(max_size=20), st.integers(0, 20))
def test_any_range_header(text: str, size: int) -> None:
    try:
        found = parse_range("bytes=" + text, size)
    except S3Error:
        return
    assert found is None or 0 <= found[0] < found[1] <= size


@given(st.binary(max_size=200))
def test_any_document(body: bytes) -> None:
    try:
        xml.parse(body, "Delete")
    except S3Error as error:
        if error.code != "MalformedXML":
            raise


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><Delete>&a;</Delete>',
        b'<!DOCTYPE Delete SYSTEM "http://localhost/x"><Delete/>',
        b"<Delete>" + b"<a>" * 50 + b"</a>" * 50 + b"</Delete>",
        b"<Delete>" + b"<a/>" * (xml.ELEMENTS_MAX + 1) + b"</Delete>",
        b"<Other/>",
        b"<Delete>",
        b"",
        b'<?xml version="1.0" encoding="nonsense"?><Delete/>',
    ],
    ids=["entity", "external", "deep", "many", "root", "open", "empty", "encoding"],
)
def test_hostile_documents(body: bytes) -> None:
    with pytest.raises(S3Error, match="MalformedXML"):
        xml.parse(body, "Delete")


def test_namespaces_do_not_matter() -> None:
    for attributes in ("", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'):
        node = xml.parse(f"<Delete{attributes}><Object><Key>a&amp;b</Key></Object></Delete>".encode(), "Delete")
        assert [found.value("Key") for found in node.all("Object")] == ["a&b"]


def test_etags() -> None:
    assert parse_etags('"a", W/"b",c , *') == ("a", "b", "c", "*")
    with pytest.raises(S3Error):
        parse_etags(",".join("x" * 100))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("b/k", ("b", b"k", None)),
        ("/b/k/l", ("b", b"k/l", None)),
        ("b/a%20%3F", ("b", b"a ?", None)),
        ("b/k?versionId=null", ("b", b"k", 0)),
        ("b/k?versionId=000000000000001f", ("b", b"k", 31)),
        ("%2Fb%2Fk", ("b", b"k", None)),
    ],
)
def test_copy_sources(text: str, found: tuple[str, bytes, int | None]) -> None:
    assert parse_copy_source(text) == found


@pytest.mark.parametrize(
    "text", ["", "b", "/b", "b/", "b/k?x=y", "b/k?versionId=1", "b/%00", "b/%ff", "b/" + "k" * 1025, "arn:aws:s3:x/object/k"]
)
def test_bad_copy_sources(text: str) -> None:
    with pytest.raises(S3Error):
        parse_copy_source(text)


@given(st.text(max_size=60))
def test_any_tag_header(text: str) -> None:
    try:
        assert len(parse_tag_header(text)) <= 10
    except S3Error as error:
        if error.code not in ("InvalidTag", "InvalidArgument"):
            raise


@pytest.mark.parametrize(
    ("name", "value"),
    [("crc32", "cbf43926"), ("crc32c", "e3069283"), ("crc64nvme", "ae8b14860a799888"), ("md5", "25f9e794323b453885f5181f1b624d0b")],
)
def test_check_values(name: str, value: str) -> None:
    """The catalogue's check values: the digest of "123456789"."""
    assert digest(name, b"123456789").hex() == value
    assert checksums.digest_small(name, b"123456789").hex() == value


@given(data=st.binary(max_size=100), name=st.sampled_from(["crc32c", "crc64nvme"]))
def test_crcs_of_documents(data: bytes, name: str) -> None:
    assert checksums.digest_small(name, data) == digest(name, data)


@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=5), name=st.sampled_from(["CRC32", "CRC32C", "CRC64NVME"]))
def test_combined_crcs(parts: list[bytes], name: str) -> None:
    algorithm = checksums.ALGORITHMS[name]
    combined = checksums.combine(algorithm, [(digest(algorithm.store_name, part), len(part)) for part in parts])
    assert combined == digest(algorithm.store_name, b"".join(parts))


@pytest.mark.parametrize("body", [b"<a\x01/>", "k\ud800".encode("utf-8", "surrogatepass")])
def test_undecodable_documents(body: bytes) -> None:
    with pytest.raises(S3Error, match="MalformedXML"):
        xml.parse(body, "a")
