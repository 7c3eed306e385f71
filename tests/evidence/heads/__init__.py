"""Heads in the store."""
