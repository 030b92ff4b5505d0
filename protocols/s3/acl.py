"""Access control lists: who else may read or change a bucket's listing, an object, or the lists themselves.

A list is kept in `trefoil.acl` of the view or element: by its canned name where one says the same (absent means `private`), else as
`[[permission, grantee], ...]` in JSON, a grantee being a group's URI or a user's id. The bucket owner and root may do everything whatever a
list says, so `bucket-owner-*` lists say the same as `private`.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from element_store.types import Attributes
from protocols.auth.accounts import User
from protocols.s3 import xml
from protocols.s3.errors import S3Error, invalid_argument, not_implemented
from protocols.s3.request import Request

ACL = "trefoil.acl"
GRANTS_MAX = 100
PRIVATE = "private"
ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED_USERS = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"

_FULL = "FULL_CONTROL"
_GROUPS = frozenset({ALL_USERS, AUTHENTICATED_USERS})
_PERMISSIONS = frozenset({"READ", "WRITE", "READ_ACP", "WRITE_ACP", _FULL})
_SAME_AS_PRIVATE = frozenset({PRIVATE, "bucket-owner-read", "bucket-owner-full-control"})
_NOT_KEPT = frozenset({"aws-exec-read", "log-delivery-write"})


class Grant(NamedTuple):
    permission: str
    grantee: str
    """A group's URI or a user's id; ids hold no slash."""


_CANNED: Mapping[str, tuple[Grant, ...]] = {
    "public-read": (Grant("READ", ALL_USERS),),
    "public-read-write": (Grant("READ", ALL_USERS), Grant("WRITE", ALL_USERS)),
    "authenticated-read": (Grant("READ", AUTHENTICATED_USERS),),
}


class Access(enum.Enum):
    """What an operation does, as far as a list may allow it to others than the owner."""

    OWN = enum.auto()
    LIST = enum.auto()
    WRITE = enum.auto()
    READ_OBJECT = enum.auto()
    READ_ACL = enum.auto()
    WRITE_ACL = enum.auto()


def canned_acl(request: Request) -> str | None:
    """The list that the request's header names; None where it names none. Raises InvalidArgument or NotImplemented."""
    value = request.header(b"x-amz-acl")
    if value is None:
        return None
    if value in _SAME_AS_PRIVATE:
        return PRIVATE
    if value in _CANNED:
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


@lru_cache(maxsize=1024)
def grants_of(acl: str) -> tuple[Grant, ...]:
    """To others than the owner, unless the list was given as a document that names the owner. What cannot be understood grants nothing."""
    if not acl.startswith("["):
        return _CANNED.get(acl, ())
    try:
        return tuple(Grant(str(permission), str(grantee)) for permission, grantee in json.loads(acl)[:GRANTS_MAX])
    except (ValueError, TypeError, RecursionError):
        return ()


def allows(acl: str, user: User | None, permission: str) -> bool:
    """Somebody who is not the owner has the permission (`READ`, `WRITE`, `READ_ACP` or `WRITE_ACP`)."""
    if acl == PRIVATE:
        return False
    grantees = {ALL_USERS} if user is None else {ALL_USERS, AUTHENTICATED_USERS, user.id}
    return any(grant.permission in (permission, _FULL) and grant.grantee in grantees for grant in grants_of(acl))


def document(owner: User, acl: str, names: Mapping[str, str]) -> str:
    """Content of an AccessControlPolicy. `names`: display names of users by id."""
    fields = _user(owner.id, owner.display_name)
    grants = list(grants_of(acl))
    if not acl.startswith("["):
        grants.append(Grant(_FULL, owner.id))
    listed = "".join(_grant(grant, owner, names) for grant in grants)
    return f"<Owner>{fields}</Owner><AccessControlList>{listed}</AccessControlList>"


def _user(user_id: str, name: str) -> str:
    return xml.element("ID", user_id) + xml.element("DisplayName", name)


def _grant(grant: Grant, owner: User, names: Mapping[str, str]) -> str:
    if grant.grantee in _GROUPS:
        kind, fields = "Group", xml.element("URI", grant.grantee)
    else:
        name = owner.display_name if grant.grantee == owner.id else names.get(grant.grantee, grant.grantee)
        kind, fields = "CanonicalUser", _user(grant.grantee, name)
    grantee = f'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="{kind}">{fields}</Grantee>'
    return f"<Grant>{grantee}{xml.element('Permission', grant.permission)}</Grant>"


def users_of(acl: str) -> list[str]:
    """Ids of the users that a list grants something to, each once."""
    return list(dict.fromkeys(grant.grantee for grant in grants_of(acl) if grant.grantee not in _GROUPS))


def parse_document(body: bytes, owner: str) -> str:
    """The list that a document describes. Raises MalformedXML, AccessDenied for a change of the owner, InvalidArgument, NotImplemented."""
    root = xml.parse(body, "AccessControlPolicy")
    listed, named_owner = root.child("AccessControlList"), root.child("Owner")
    if listed is None:
        raise S3Error("MalformedXML")
    if named_owner is not None and named_owner.value("ID") not in (None, owner):
        raise S3Error("AccessDenied")
    grants: list[Grant] = []
    for node in listed.all("Grant"):
        grantee, permission = node.child("Grantee"), node.value("Permission")
        if grantee is None or permission not in _PERMISSIONS or len(grants) >= GRANTS_MAX:
            raise S3Error("MalformedXML")
        grants.append(Grant(permission, _grantee(grantee)))
    others = [grant for grant in grants if grant != (_FULL, owner)]
    if len(others) < len(grants):
        for acl, canned in ((PRIVATE, ()), *_CANNED.items()):
            if set(others) == set(canned):
                return acl
    return json.dumps(grants, separators=(",", ":"))


def _grantee(node: xml.Node) -> str:
    group, user = node.value("URI"), node.value("ID")
    if group is not None:
        if group not in _GROUPS:
            raise invalid_argument("URI", group, "Invalid group uri")
        return group
    if user is None:
        if node.child("EmailAddress") is not None:
            raise not_implemented("A grant to an e-mail address")
        raise S3Error("MalformedXML")
    return user
