"""`make headline`: the claim, measured end to end with real generations through the gateway."""
