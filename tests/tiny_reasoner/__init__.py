"""The tiny reasoner: its task, its engine and its server."""
