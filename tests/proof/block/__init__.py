"""Volumes under judgement: a small host of our own (`host`), and a stock Linux kernel in a virtual machine (`machine`, run by hand)."""
