"""Heads in the store: kept, promoted on all gateways, and tried beside the head that decides."""
