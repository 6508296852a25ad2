"""Metrics, traces, logs and health; under all other rooms."""
