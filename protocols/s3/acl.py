"""Canned access control lists: who else may read a bucket's listing, write into it, or read an object.

A list is kept by its canned name in `trefoil.acl` of the view or element; absent means `private`. The bucket owner and root may do
everything, so `bucket-owner-*` lists say the same as `private`. Lists with grants to single users are not kept: they are refused.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from element_store.types import Attributes
from protocols.auth.accounts import User
from protocols.s3 import xml
from protocols.s3.errors import S3Error, invalid_argument, not_implemented
from protocols.s3.request import Request

ACL = "trefoil.acl"
PRIVATE = "private"
ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED_USERS = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"

# canned name -> (group, permissions of the group)
_GROUPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "public-read": (ALL_USERS, ("READ",)),
    "public-read-write": (ALL_USERS, ("READ", "WRITE")),
    "authenticated-read": (AUTHENTICATED_USERS, ("READ",)),
}
_SAME_AS_PRIVATE = frozenset({PRIVATE, "bucket-owner-read", "bucket-owner-full-control"})
_NOT_KEPT = frozenset({"aws-exec-read", "log-delivery-write"})


class Access(enum.Enum):
    """What an operation does, as far as a list may allow it to others than the owner."""

    OWN = enum.auto()
    LIST = enum.auto()
    WRITE = enum.auto()
    READ_OBJECT = enum.auto()


def canned_acl(request: Request) -> str | None:
    """The list that the request's header names; None where it names none. Raises InvalidArgument or NotImplemented."""
    value = request.header(b"x-amz-acl")
    if value is None:
        return None
    if value in _SAME_AS_PRIVATE:
        return PRIVATE
    if value in _GROUPS:
        return value
    if value in _NOT_KEPT:
        raise not_implemented(f"The canned ACL {value}")
    raise invalid_argument("x-amz-acl", value, "The canned ACL is not valid.")


def acl_of(attributes: Attributes) -> str:
    value = attributes.xattrs.get(ACL)
    return PRIVATE if value is None else value.decode("utf-8", "replace")


def acl_xattrs(acl: str | None) -> dict[str, bytes]:
    return {} if acl is None or acl == PRIVATE else {ACL: acl.encode()}


def with_acl(attributes: Attributes, acl: str) -> Attributes:
    kept = {name: value for name, value in attributes.xattrs.items() if name != ACL}
    return Attributes(attributes.uid, attributes.gid, attributes.mode, kept | acl_xattrs(acl))


def allows(acl: str, user: User | None, permission: str) -> bool:
    """Somebody who is not the owner has the permission (`READ` or `WRITE`)."""
    found = _GROUPS.get(acl)
    if found is None:
        return False
    group, permissions = found
    return permission in permissions and (group == ALL_USERS or user is not None)


def document(owner: User, acl: str) -> str:
    """Content of an AccessControlPolicy."""
    fields = xml.element("ID", owner.id) + xml.element("DisplayName", owner.display_name)
    grants = _grant("CanonicalUser", fields, "FULL_CONTROL")
    group, permissions = _GROUPS.get(acl, ("", ()))
    for permission in permissions:
        grants = _grant("Group", xml.element("URI", group), permission) + grants
    return f"<Owner>{fields}</Owner><AccessControlList>{grants}</AccessControlList>"


def _grant(kind: str, fields: str, permission: str) -> str:
    grantee = f'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="{kind}">{fields}</Grantee>'
    return f"<Grant>{grantee}<Permission>{permission}</Permission></Grant>"


def parse_document(body: bytes, owner: str) -> str:
    """The canned list that says the same as the document. Raises MalformedXML, or NotImplemented if there is none."""
    listed = xml.parse(body, "AccessControlPolicy").child("AccessControlList")
    if listed is None:
        raise S3Error("MalformedXML")
    groups: dict[str, set[str]] = {}
    for grant in listed.all("Grant"):
        grantee, permission = grant.child("Grantee"), grant.value("Permission")
        if grantee is None or permission is None:
            raise S3Error("MalformedXML")
        group = grantee.value("URI")
        if group is not None:
            groups.setdefault(group, set()).add(permission)
        elif grantee.value("ID") != owner or permission != "FULL_CONTROL":
            raise not_implemented("An access control list with grants to users")
    if not groups:
        return PRIVATE
    for acl, (group, permissions) in _GROUPS.items():
        if groups == {group: set(permissions)}:
            return acl
    raise not_implemented("An access control list that is not a canned one")
