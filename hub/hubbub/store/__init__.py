"""Where everything durable lives; no SQL dialect is spoken outside this room."""
