"""Judges of the product: they start it, hurt it, and compare what it serves with what it acknowledged.

Nothing in here is imported by the product, and nothing in here asks the product to behave differently while it is being judged.
"""
