"""Certificates of listeners."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hubbub.config import TlsSettings
from hubbub.errors import HubError

__all__ = ["TlsError", "is_renewal", "problem_with", "renew", "server_context"]

HANDSHAKE_S: Final = 10.0
"""How long a peer may take to agree on the encryption."""


class TlsError(HubError):
    """A certificate or its key cannot be used."""

    code = "tls"


def server_context(tls: TlsSettings, *, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """Read the files of a listener, as they are now.

    Raises:
        TlsError: one of them cannot be read or used, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, tls)
    if tls.client_ca is not None:
        _readable("client_ca", tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cafile=tls.client_ca)
        except ssl.SSLError as error:
            raise TlsError(
                f"tls.client_ca {tls.client_ca} cannot be used: {_why(error)}; "
                "it holds certificates of authorities, PEM"
            ) from error
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def problem_with(tls: TlsSettings | None) -> str | None:
    """Return why the files of a listener cannot be used, as they are now; None when they can."""
    if tls is not None:
        try:
            server_context(tls)
        except TlsError as error:
            return str(error)
    return None


def is_renewal(before: TlsSettings | None, after: TlsSettings | None) -> bool:
    """Tell whether a listener that is open can go over: to another certificate at most."""
    if before is None or after is None:
        return before is after
    return before.client_ca == after.client_ca


def renew(context: ssl.SSLContext, tls: TlsSettings) -> None:
    """Give a context that is in use the certificate and key as the files have them now.

    Raises:
        TlsError: they cannot be used; the context keeps what it has.
    """
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls)  # one that fails may be half loaded
    _load(context, tls)


def _load(context: ssl.SSLContext, tls: TlsSettings) -> None:
    _readable("cert", tls.cert)
    _readable("key", tls.key)
    try:
        context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(
            f"tls.cert {tls.cert} and tls.key {tls.key} cannot be used: {_why(error)}; both are "
            "PEM, the key is that of the certificate and has no password"
        ) from error


def _readable(name: str, path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise TlsError(f"tls.{name}: cannot read {path}: {error.strerror}") from error


def _why(error: Exception) -> str:
    """Say it in the words of OpenSSL, without its file and line."""
    reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
    return (reason or str(error)).replace("_", " ").lower()
