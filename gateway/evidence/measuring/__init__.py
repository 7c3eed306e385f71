"""Measures a model: asks every prompt at every rung, grades the answers, and says what a router could gain."""
