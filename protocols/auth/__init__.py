"""Identities: users, access keys, and the signatures that prove them. Shared by the protocols; knows none of them."""

from protocols.auth.accounts import AccessKey, Accounts, Credential, User
from protocols.auth.authenticator import Authenticator
from protocols.auth.errors import AccountError, AuthError

__all__ = ["AccessKey", "AccountError", "Accounts", "AuthError", "Authenticator", "Credential", "User"]
