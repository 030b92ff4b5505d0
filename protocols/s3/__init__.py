"""The S3 gateway: an ASGI application over `element_store.interface.ElementStore`."""

from protocols.s3.config import S3Config
from protocols.s3.gateway import S3Gateway

__all__ = ["S3Config", "S3Gateway"]
