"""Reads of the store, one module a noun."""
