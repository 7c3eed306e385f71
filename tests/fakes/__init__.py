"""Stand-ins for the world outside the gateway, for fault and load tests only."""
