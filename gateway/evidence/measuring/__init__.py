"""Measures a model: asks prompts at all rungs, grades the answers, says what a router could gain."""
