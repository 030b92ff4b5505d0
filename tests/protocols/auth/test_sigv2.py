"""Signature Version 2 against the published examples of the Amazon S3 developer guide ("Signing and Authenticating REST Requests")."""

from __future__ import annotations

import pytest

from protocols.auth.sigv2 import sign, strings_to_sign
from tests.protocols.auth.test_sigv4 import SECRET_KEY, FakeRequest

# The guide's AKIDEXAMPLE pair; same secret as of the version 4 examples.
EXAMPLES = [
    (
        FakeRequest("GET", b"/photos/puppy.jpg", {b"date": b"Tue, 27 Mar 2007 19:36:42 +0000"}, host_bucket="awsexamplebucket1"),
        "qgk2+6Sv9/oM7G3qLEjTH1a1l1g=",
    ),
    (
        FakeRequest(
            "PUT",
            b"/photos/puppy.jpg",
            {b"content-type": b"image/jpeg", b"content-length": b"94328", b"date": b"Tue, 27 Mar 2007 21:15:45 +0000"},
            host_bucket="awsexamplebucket1",
        ),
        "iqRzw+ileNPu1fhspnRs8nOjjIA=",
    ),
    (
        FakeRequest(
            "GET",
            b"/",
            {b"date": b"Tue, 27 Mar 2007 19:42:41 +0000"},
            [("prefix", "photos"), ("max-keys", "50"), ("marker", "puppy")],
            host_bucket="awsexamplebucket1",
        ),
        "m0WP8eCtspQl5Ahe6L1SozdX9YA=",
    ),
    (
        FakeRequest("GET", b"/", {b"date": b"Tue, 27 Mar 2007 19:44:46 +0000"}, [("acl", "")], host_bucket="awsexamplebucket1"),
        "82ZHiFIjc+WbcwFKGUVEQspPn+0=",
    ),
]


@pytest.mark.parametrize(("request_", "signature"), EXAMPLES)
def test_published_examples(request_: FakeRequest, signature: str) -> None:
    assert [sign(SECRET_KEY, text) for text in strings_to_sign(request_, request_.headers[b"date"].decode())] == [signature]
