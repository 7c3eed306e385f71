"""Whether the head's promises still hold: tests that may be looked at all the time, and what follows."""
