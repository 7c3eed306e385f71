"""`make demo`: shows Thinkmeter with a small real model in two minutes."""
