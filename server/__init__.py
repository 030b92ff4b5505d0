"""The daemon: configuration, command line, admin REST, telemetry, and the one place where everything is put together (`app`)."""

__version__ = "0.1.0"
