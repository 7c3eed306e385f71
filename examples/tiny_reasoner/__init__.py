"""A small reasoning model of our own: task, training, weights, and an OpenAI-compatible server."""
