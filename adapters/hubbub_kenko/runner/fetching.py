"""Packages that a runner has fetched: files named by their digest, looked at before they count."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

import httpx2

from hubbub.file_modes import make_folder, open_binary
from hubbub_kenko.runner.packages import MAX_PACKAGE
from hubbub_kenko.runner.wire import Package

__all__ = ["FetchError", "Packages"]

CHUNK: Final = 256 * 1024
OK: Final = 200


class FetchError(Exception):
    """A package cannot be had."""


class Packages:
    """The packages of one runner."""

    def __init__(self, folder: Path, *, timeout_s: float) -> None:
        self._folder = folder
        self._timeout_s = timeout_s

    async def fetch(self, package: Package, url: str) -> Path:
        """Return the file of a package, fetched if it is not there.

        Raises:
            FetchError: it does not come, or is not what was promised; nothing is left of it.
        """
        path = self._folder / f"{package.sha256}.zip"
        if await asyncio.to_thread(path.exists):
            return path
        if package.size > MAX_PACKAGE:
            raise FetchError(f"the package has {package.size} bytes, the limit is {MAX_PACKAGE}")
        await asyncio.to_thread(make_folder, self._folder)
        part = path.with_suffix(f".{secrets.token_hex(4)}.part")
        try:
            async with asyncio.timeout(self._timeout_s):
                with await asyncio.to_thread(open_binary, part, "xb") as file:
                    await _download(url, package, file)
            await asyncio.to_thread(part.replace, path)
        except (httpx2.HTTPError, OSError) as error:  # a timeout is an OSError
            why = str(error) or type(error).__name__
            raise FetchError(f"the package cannot be fetched: {why}") from error
        finally:
            with suppress(OSError):
                await asyncio.to_thread(part.unlink, missing_ok=True)
        return path

    async def keep_only(self, digests: Collection[str]) -> None:
        """Remove the packages that nobody needs."""

        def remove() -> None:
            for path in self._folder.glob("*.zip"):
                if path.stem not in digests:
                    path.unlink(missing_ok=True)

        await asyncio.to_thread(remove)


async def _download(url: str, package: Package, file: BinaryIO) -> None:
    """Write what comes to a file, as far as it may be the package.

    Raises:
        FetchError: it is not.
    """
    digest, size = sha256(), 0
    async with httpx2.AsyncClient() as client, client.stream("GET", url) as answer:
        if answer.status_code != OK:
            raise FetchError(f"the hub does not give the package: {answer.status_code}")
        async for chunk in answer.aiter_bytes(CHUNK):
            size += len(chunk)
            if size > package.size:
                break
            digest.update(chunk)
            await asyncio.to_thread(file.write, chunk)
    if size != package.size or digest.hexdigest() != package.sha256:
        raise FetchError("what the hub gave is not the package it promised")
