"""The relay adapter."""
