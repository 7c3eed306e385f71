"""Rows of the evidence store as files."""
