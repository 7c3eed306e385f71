"""Migrations of the evidence store: one module in `versions` per change of `gateway.evidence.schema`."""
