"""What the paths of these features work with while the adapter is up."""

from __future__ import annotations

from dataclasses import dataclass

from hubbub.web import Call
from hubbub_kenko.admin.deployments import Deployments
from hubbub_kenko.admin.shelf import Shelf
from hubbub_kenko.admin.simulator import Simulator
from hubbub_kenko.rooms import Room

__all__ = ["Features", "audit"]


@dataclass(frozen=True, slots=True)
class Features:
    """The features of one running adapter."""

    room: Room
    simulator: Simulator
    shelf: Shelf
    deployments: Deployments


async def audit(now: Features, call: Call, act: str, target: str, detail: str = "") -> None:
    """Note what an administrator did."""
    await now.room.hub.audit(call.principal.name, act, target, detail)
