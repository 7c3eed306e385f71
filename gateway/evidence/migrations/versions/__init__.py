"""The changes of the tables, in order of their `revision`."""
