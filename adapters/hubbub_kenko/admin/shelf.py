"""Where packages lie: zips by their digest below the data directory, rows in the store."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import delete, insert, select
from sqlmodel import Session, col

from hubbub import Hub
from hubbub.envelope import rfc3339
from hubbub.errors import NotFoundError, TooLargeError
from hubbub.file_modes import make_folder, open_binary
from hubbub.store.tables import table_of
from hubbub_kenko.admin.tables import KenkoPackageRow
from hubbub_kenko.runner.packages import MAX_PACKAGE, Manifest, inspect

__all__ = ["SIGNED_S", "Shelf", "manifest_of", "shown"]

SIGNED_S: Final = 600
"""Seconds a signed URL of a package holds."""

_rows = table_of(KenkoPackageRow)


def manifest_of(row: KenkoPackageRow) -> Manifest:
    """Return what a package says of itself."""
    return msgspec.json.decode(row.manifest, type=Manifest)


def shown(row: KenkoPackageRow) -> dict[str, Any]:
    """Return a package as the API shows it."""
    manifest = manifest_of(row).view()
    return {
        "id": row.id,
        "name": manifest["name"],
        "version": manifest["version"],
        "sha256": row.sha256,
        "size": row.size,
        "manifest": manifest,
        "created_at": rfc3339(row.created_us),
    }


class Shelf:
    """The packages of one hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._folder = hub.data_dir / "kenko" / "packages"
        self._key = secrets.token_bytes(32)

    async def put(self, chunks: AsyncIterator[bytes]) -> KenkoPackageRow:
        """Take in a zip as it comes.

        Raises:
            PackageError: it cannot be used; nothing is left of it.
            TooLargeError: over `MAX_PACKAGE`.
        """
        await asyncio.to_thread(make_folder, self._folder)
        part = self._folder / f"{secrets.token_hex(8)}.part"
        digest, size = sha256(), 0
        try:
            with await asyncio.to_thread(open_binary, part, "xb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > MAX_PACKAGE:
                        raise TooLargeError(
                            what="the package", size_bytes=None, limit_bytes=MAX_PACKAGE
                        )  # fmt: skip
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
            manifest = await asyncio.to_thread(inspect, part)
            row = KenkoPackageRow(
                id=f"pkg_{secrets.token_hex(8)}",
                sha256=digest.hexdigest(),
                size=size,
                manifest=msgspec.json.encode(manifest).decode(),
                created_us=self._hub.clock.now_us(),
            )
            await asyncio.to_thread(part.replace, self.path_of(row))
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)
        await self._hub.execute((insert(_rows), [row.model_dump()]))
        return row

    def path_of(self, row: KenkoPackageRow) -> Path:
        """Return where the zip of a package lies."""
        return self._folder / f"{row.id}.zip"

    async def get(self, package_id: str) -> KenkoPackageRow:
        """Return a package.

        Raises:
            NotFoundError: no such package.
        """
        row = await self._hub.read(lambda session: session.get(KenkoPackageRow, package_id))
        if row is None:
            raise NotFoundError(f"there is no package {package_id[:64]!r}")
        return row

    async def page(self, *, after: tuple[int, str] | None, limit: int) -> Sequence[KenkoPackageRow]:
        """Return packages, newest first, after a time and an id."""

        def read(session: Session) -> Sequence[KenkoPackageRow]:
            at, package_id = col(KenkoPackageRow.created_us), col(KenkoPackageRow.id)
            query = select(KenkoPackageRow).order_by(at.desc(), package_id.desc()).limit(limit)
            if after is not None:
                query = query.where((at < after[0]) | ((at == after[0]) & (package_id < after[1])))
            return session.scalars(query).all()

        return await self._hub.read(read)

    async def remove(self, row: KenkoPackageRow) -> None:
        """Remove a package."""
        await self._hub.execute((delete(_rows).where(col(KenkoPackageRow.id) == row.id), []))
        await asyncio.to_thread(self.path_of(row).unlink, missing_ok=True)

    # Signed URLs: for runners, which have no token of this API

    def sign(self, package_id: str) -> str:
        """Return the query that lets whoever has it fetch one package, for a while."""
        until_s = self._hub.clock.now_us() // 1_000_000 + SIGNED_S
        return f"expires={until_s}&signature={self._signature(package_id, until_s)}"

    def may_fetch(self, package_id: str, expires: str, signature: str) -> bool:
        """Tell whether a query was signed for that package and still holds."""
        if not (expires.isascii() and expires.isdigit() and len(expires) < 12):  # noqa: PLR2004
            return False
        wanted = self._signature(package_id, int(expires))
        fresh = int(expires) >= self._hub.clock.now_us() // 1_000_000
        return hmac.compare_digest(wanted.encode(), signature.encode()) and fresh

    def _signature(self, package_id: str, until_s: int) -> str:
        return hmac.new(self._key, f"{package_id}:{until_s}".encode(), sha256).hexdigest()
