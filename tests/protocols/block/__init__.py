"""Volumes: the Python side; the engine has tests of its own."""
