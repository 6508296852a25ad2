"""Certificates of those who dial out."""

from __future__ import annotations

import ssl

from hubbub.config import ClientTlsSettings
from hubbub.listeners import TlsError

__all__ = ["client_context"]


def client_context(tls: ClientTlsSettings) -> ssl.SSLContext:
    """Read the files of a dial, as they are now; it reads from disk.

    Raises:
        TlsError: one of them cannot be read or used.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(
            f"tls.ca {tls.ca} cannot be used: {_why(error)}; it holds certificates of "
            "authorities, PEM"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert is not None:
        try:
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
        except (OSError, ssl.SSLError, ValueError) as error:
            raise TlsError(
                f"tls.cert {tls.cert} and tls.key {tls.key} cannot be used: {_why(error)}; both "
                "are PEM, the key is that of the certificate and has no password"
            ) from error
    return context


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
