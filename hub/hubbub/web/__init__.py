"""The HTTP side of the hub: its API, health, metrics, and the paths of adapters and plugins."""
