"""Thinkmeter: an OpenAI-compatible gateway that spends reasoning tokens where they pay."""

__version__ = "0.1.0"
