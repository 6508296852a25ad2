"""Mailboxes and links: hand over, acknowledge, retry, give up."""

from hubbub.delivery.room import DeliveryRoom

__all__ = ["DeliveryRoom"]
