"""What keeps deliveries that wait: `local` here, others behind the same port."""
