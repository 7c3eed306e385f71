"""`make demo`: see it work, with a real small model, in two minutes."""
