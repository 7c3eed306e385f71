"""Stand-ins for the servers that the gateway talks to, for fault and load tests only."""
