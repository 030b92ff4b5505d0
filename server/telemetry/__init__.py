"""Logs, metrics and the ASGI middleware that measures S3 requests. Observes; never changes a request or an answer."""
