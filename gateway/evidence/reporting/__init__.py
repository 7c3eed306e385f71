"""The report for whoever pays: what was saved against the hold-out, with intervals."""
