"""Evidence from the gateway's own traffic: what was decided, and how good the answers were."""
