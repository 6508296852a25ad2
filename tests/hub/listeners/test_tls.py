"""TLS on every kind of listener; its errors say what to do."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from hubbub.config import TlsSettings, load_config
from hubbub.listeners import TlsError, streams
from hubbub.listeners.tls import HANDSHAKE_S, server_context
from hubbub.testing import TcpPeer, serving_hub
from tests.hub.listeners.conftest import OPENSSL, Bench, Files
from tests.hub.listeners.test_http import app
from tests.hub.listeners.test_tcp import Echo, Talker

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="makes certificates with openssl")


@pytest.mark.parametrize("protocol", [Echo, Talker])
async def test_lines_over_tls(bench: Bench, files: Files, protocol: type[Echo]) -> None:
    """As without; whoever speaks no TLS is closed."""
    listener = await bench.tcp(protocol, tls=files.settings)
    assert listener.url.startswith("tls://127.0.0.1:")
    peer = await bench.peer(listener, tls=files.client())
    await peer.send(b"secret\n")
    assert await peer.line() == b"secret\n"
    plain = await bench.peer(listener)
    await plain.send(b"hello\n")
    assert b"hello" not in await plain.rest()
    await peer.send(b"still here\n")
    assert await peer.line() == b"still here\n"


async def test_requests_over_tls(bench: Bench, files: Files) -> None:
    """HTTPS with HTTP/1.1."""
    listener = await bench.http(app, tls=files.settings)
    assert listener.url.startswith("https://")
    async with httpx2.AsyncClient(verify=files.client(), trust_env=False, timeout=30) as client:
        assert (await client.post(listener.url, content=b"four")).text == "4"


async def test_a_client_without_a_certificate(
    bench: Bench, files: Files, make: Callable[[str], Files]
) -> None:
    """With `client_ca` it is not let in; one with a certificate is."""
    friend = make("friend")
    tls = TlsSettings(cert=files.cert, key=files.key, client_ca=friend.cert)
    listener = await bench.tcp(Echo, tls=tls)
    known = files.client()
    known.load_cert_chain(friend.cert, friend.key)
    peer = await bench.peer(listener, tls=known)
    await peer.send(b"hello\n")
    assert await peer.line() == b"hello\n"
    try:
        stranger = await bench.peer(listener, tls=files.client())
        await stranger.send(b"hello\n")
        assert await stranger.rest() == b""
    except (ssl.SSLError, ConnectionError):
        pass


async def test_the_hub_over_tls(tmp_path: Path, files: Files) -> None:
    """`[hub] tls`; the paths are relative to hub.toml."""
    folder = tmp_path / "hub"
    folder.mkdir()
    for path in (files.cert, files.key):
        shutil.copy(path, folder)
    toml = '[hub]\ndrain_timeout = 0.5\ntls = { cert = "hub.pem", key = "hub.key" }\n'
    async with serving_hub(folder, toml) as hub:
        assert hub.main.url.startswith("https://")
        async with httpx2.AsyncClient(verify=files.client(), trust_env=False, timeout=30) as client:
            assert (await client.get(f"{hub.main.url}/healthz")).status_code == 200


def test_files_that_cannot_be_used(
    tmp_path: Path, files: Files, make: Callable[[str], Files]
) -> None:
    """Each is named, with what to do."""
    nothing, other = tmp_path / "nothing.pem", make("other")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("hello")
    cases = {
        f"tls.cert: cannot read {nothing}": TlsSettings(cert=nothing, key=files.key),
        f"tls.key: cannot read {nothing}": TlsSettings(cert=files.cert, key=nothing),
        "tls.client_ca: cannot read": TlsSettings(
            cert=files.cert, key=files.key, client_ca=nothing
        ),
        "key values mismatch": TlsSettings(cert=files.cert, key=other.key),
        "both are PEM": TlsSettings(cert=garbage, key=files.key),
        "certificates of authorities": TlsSettings(
            cert=files.cert, key=files.key, client_ca=garbage
        ),
    }
    for text, tls in cases.items():
        with pytest.raises(TlsError, match="cannot") as raised:
            server_context(tls)
        assert text in str(raised.value)


async def test_a_hub_without_its_certificate_does_not_start(tmp_path: Path) -> None:
    """And says which file it is."""
    toml = '[hub]\ntls = { cert = "no.pem", key = "no.key" }\n'
    with pytest.raises(TlsError, match=r"no\.pem"):
        async with serving_hub(tmp_path, toml):
            pass


def test_a_certificate_without_a_key_is_a_mistake(tmp_path: Path) -> None:
    """Found when hub.toml is read."""
    path = tmp_path / "hub.toml"
    path.write_text('[hub]\ntls = { cert = "hub.pem" }\n')
    with pytest.raises(Exception, match="key: is missing"):
        load_config(path, environ={})


async def test_a_peer_that_never_shakes_hands_harms_nobody(bench: Bench, files: Files) -> None:
    """It takes no place of the others."""
    listener = await bench.tcp(Echo, tls=files.settings, connections=1)
    silent = [await TcpPeer.connect(listener.address) for _ in range(5)]
    peer = await bench.peer(listener, tls=files.client())
    await peer.send(b"hello\n")
    assert await peer.line() == b"hello\n"
    for each in silent:
        each.vanish()
        await each.close()


async def test_a_handshake_has_a_deadline(
    bench: Bench, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HANDSHAKE_S, here a short one: who agrees on no encryption by then is hung up on."""
    monkeypatch.setattr(streams, "HANDSHAKE_S", 0.2)
    listener = await bench.tcp(Echo, tls=files.settings)
    silent = await TcpPeer.connect(listener.address)
    async with asyncio.timeout(HANDSHAKE_S / 2):
        assert await silent.rest() == b""
    await silent.close()
