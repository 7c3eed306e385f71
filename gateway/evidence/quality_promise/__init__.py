"""The promise of quality: which pairs it takes, what they prove, and what acts meanwhile."""
