"""A client of a running hub's API: one connection, readable errors."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, cast
from urllib.parse import quote

import msgspec

from hubbub.cli.answers import Json, objects_in
from hubbub.cli.errors import USAGE, ApiError, CommandError

if TYPE_CHECKING:
    import httpx2

__all__ = ["HubClient", "UnreachableError", "local_token", "part"]

TIMEOUT_S: Final = 10.0
"""How long the hub may take for one answer."""

PAGE: Final = 1000
"""Most items of one answer of a list."""

SILENCE_S: Final = 60.0
"""Seconds a stream may be silent, keep-alive comments included, before it counts as lost."""


class UnreachableError(CommandError):
    """No hub answers at the address, or it went away."""

    code = "unreachable"


def local_token(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the admin token of the hub that runs from this folder, as far as it can be read.

    That is `HUBBUB_ADMIN_TOKEN` if a hub started here would use it, else the file in the data
    directory that the environment or hub.toml names, else in `var`.
    """
    if given := environ.get("HUBBUB_ADMIN_TOKEN"):
        return given
    try:
        path = Path(environ.get("HUBBUB_HUB__DATA_DIR") or _data_dir()) / "admin.token"
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _data_dir() -> str:
    """Return what hub.toml in the working directory says; what is wrong in it is not our matter."""
    try:
        tree = tomllib.loads(Path("hub.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "var"
    match tree.get("hub"):
        case {"data_dir": str(named)}:
            return named
        case _:
            return "var"


class HubClient:
    """Speaks to `/api/v1` of one hub. Use it as a context manager.

    Attributes:
        streaming: Whether the hub ever began a stream; from there on it is worth trying again.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        anonymous: bool = False,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        import httpx2

        self.url: Final = url.rstrip("/")
        parts = httpx2.URL(self.url) if self.url else httpx2.URL("none")
        if parts.scheme not in ("http", "https") or not parts.host:
            raise CommandError(
                f"--url {url!r} is no address of a hub; write http://HOST:PORT", exit_code=USAGE
            )
        token = None if anonymous else token or local_token()
        self._had_token = token is not None
        self._timeout_s = timeout_s
        self.streaming = False
        self._client = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
            verify=parts.scheme == "https",  # reading all certificates takes long
            trust_env=parts.host not in ("127.0.0.1", "localhost", "::1"),
            transport=transport,
        )

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._client.close()

    def get(self, path: str, **params: object) -> Json:
        """Return what a `GET` answers; parameters that are None are left out.

        Raises:
            ApiError: the hub said no.
            UnreachableError: no hub is there.
        """
        return self.call("GET", path, params=params)

    def post(self, path: str, body: object = None, *, timeout_s: float | None = None) -> Json:
        """Return what a `POST` answers.

        Raises:
            ApiError: the hub said no.
            UnreachableError: no hub is there.
        """
        return self.call("POST", path, body=body, timeout_s=timeout_s)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, object] | None = None,
        timeout_s: float | None = None,
    ) -> Json:
        """Make one request and return its answer, an object; an empty one when it has no body.

        Raises:
            ApiError: the hub said no, or it is no hub.
            UnreachableError: no hub is there.
        """
        content = None if body is None else msgspec.json.encode(body)
        with self._reaching():
            response = self._client.request(
                method,
                path,
                content=content,
                params={
                    key: str(value) for key, value in (params or {}).items() if value is not None
                },
                headers={} if content is None else {"Content-Type": "application/json"},
                timeout=self._timeout_s if timeout_s is None else timeout_s,
            )
        self._check(response)
        if not response.content:
            return {}
        answer = _decoded(response)
        if not isinstance(answer, dict):
            raise ApiError(
                f"{self.url} answered {method} {path} with something no hub says, or that "
                "cannot be read here; is --url (HUBBUB_URL) right?",
                status=response.status_code,
            )
        return cast("Json", answer)

    def status(self, path: str) -> tuple[int, object]:
        """Return the status and the body of a `GET`, whatever they are.

        Raises:
            UnreachableError: no hub is there.
        """
        with self._reaching():
            response = self._client.get(path)
        return response.status_code, _decoded(response)

    def items(self, path: str, limit: int, **params: object) -> list[Json]:
        """Return up to `limit` items of a list, over as many pages as that takes.

        Raises:
            ApiError: the hub said no.
            UnreachableError: no hub is there.
        """
        found: list[Json] = []
        cursor: object = None
        while len(found) < limit:
            page = self.get(path, limit=min(PAGE, limit - len(found)), cursor=cursor, **params)
            found += objects_in(page, "items")
            cursor = page.get("next")
            if cursor is None:
                break
        return found

    def events(self, pattern: str, last_id: str | None) -> Iterator[tuple[str, str, str]]:
        """Yield `(event, id, data)` of the hub's stream until the connection ends.

        Raises:
            ApiError: the hub said no.
            UnreachableError: no hub is there, or it went away.
        """
        import httpx2

        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        timeout = httpx2.Timeout(self._timeout_s, read=SILENCE_S)
        with (
            self._reaching(),
            self._client.sse(
                "/api/v1/stream", params={"subject": pattern}, headers=headers, timeout=timeout
            ) as source,
        ):
            if source.response.status_code != HTTPStatus.OK:
                source.response.read()
                self._check(source.response)
            self.streaming = True
            for event in source:
                yield event.event, event.id, event.data

    @contextmanager
    def _reaching(self) -> Generator[None]:
        import httpx2

        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise UnreachableError(
                f"cannot reach the hub at {self.url}; is it running? start it with `hubbub run`, "
                "or name another with --url"
            ) from error
        except httpx2.TimeoutException as error:
            raise UnreachableError(
                f"the hub at {self.url} did not answer in time; `hubbub healthcheck` tells more"
            ) from error
        except httpx2.TransportError as error:
            raise UnreachableError(
                f"the connection to the hub at {self.url} was lost: {error}; is it still running?"
            ) from error

    def _check(self, response: httpx2.Response) -> None:
        """Raise what the hub said when it said no."""
        if response.is_success:
            return
        status = response.status_code
        problem = _decoded(response)
        kind = trace = ""
        text = f"the hub answered {status} {response.reason_phrase}".rstrip()
        match problem:
            case {"detail": str(detail)}:
                text = detail
            case {"title": str(title)}:
                text = title
            case _:
                pass
        match problem:
            case {"type": str(said)}:
                kind = said.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].rsplit("#", 1)[-1]
            case _:
                pass
        match problem:
            case {"trace_id": str(said)} if said and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                trace = f" (trace {said})"
            case _:
                pass
        raise ApiError(text + trace + self._advice(status), status=status, kind=kind)

    def _advice(self, status: int) -> str:
        if status == HTTPStatus.UNAUTHORIZED:
            if self._had_token:
                return "; give another token with --token or HUBBUB_TOKEN"
            return (
                "; give a token with --token or HUBBUB_TOKEN, or run this where the hub's "
                "data directory is"
            )
        return ""


def part(text: str) -> str:
    """Write a name as one part of a path."""
    return quote(text, safe="")


def _decoded(response: httpx2.Response) -> object:
    try:
        return msgspec.json.decode(response.content) if response.content else None
    except (msgspec.DecodeError, UnicodeError):
        return response.text
