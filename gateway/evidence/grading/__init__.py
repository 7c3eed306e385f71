"""Graders: how good an answer is, by a reference, by a command, by a judge, or by agreement."""
