"""Certificates of listeners."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hubbub.config import TlsSettings
from hubbub.errors import HubError

__all__ = ["TlsError", "server_context"]

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
    for name, path in (("cert", tls.cert), ("key", tls.key), ("client_ca", tls.client_ca)):
        if path is not None:
            _readable(name, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(
            f"tls.cert {tls.cert} and tls.key {tls.key} cannot be used: {_why(error)}; both are "
            "PEM, the key is that of the certificate and has no password"
        ) from error
    if tls.client_ca is not None:
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
