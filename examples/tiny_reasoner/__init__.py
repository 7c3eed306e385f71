"""A small reasoning model: task, training, weights, and an OpenAI-compatible server."""
