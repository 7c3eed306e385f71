"""`make headline`: measures the main claim end to end, with real generations through the gateway."""
