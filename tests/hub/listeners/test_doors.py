"""Addresses, limits and certificates that change while the hub runs."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from hubbub.config import Address
from hubbub.errors import ConfigError
from hubbub.hub import Hub
from hubbub.reload import Reloaded, Reloads
from hubbub.testing import TcpPeer, serving_hub
from tests.hub.listeners.conftest import OPENSSL, Files
from tests.hub.listeners.test_opening import Both, works

HUB = "[hub]\ndrain_timeout = 0.2\n"
RELAY = "[adapters.relay]\nenabled = true\n"
LISTEN = 'listen = ["127.0.0.1:0"]\n'
with_openssl = pytest.mark.skipif(OPENSSL is None, reason="makes certificates with openssl")


async def reload(hub: Hub, toml: str) -> Reloaded:
    file = hub.core.config.file
    assert file is not None
    file.write_text(toml, encoding="utf-8")
    return await Reloads(hub.core).reload(by="test")


def address_of(hub: Hub, name: str = "relay") -> Address:
    (listener,) = hub.core.listeners.of(name)
    return listener.address


async def status(address: Address, path: str = "/api/relay/logs") -> int:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        return (await client.get(f"http://{address}{path}")).status_code


async def is_closed(address: Address) -> bool:
    try:
        peer = await TcpPeer.connect(address)
    except ConnectionError:
        return True
    await peer.close()
    return False


async def test_an_adapter_that_is_switched_on_opens_its_addresses(tmp_path: Path) -> None:
    """And closes them when it is switched off."""
    async with serving_hub(tmp_path, HUB) as hub:
        done = await reload(hub, HUB + RELAY + LISTEN)
        assert done.needs_restart == ()
        address = address_of(hub)
        assert await status(address) == 200
        await reload(hub, HUB)
        assert hub.core.listeners.of("relay") == []
        assert await is_closed(address)


async def test_addresses_move_while_the_adapter_runs(tmp_path: Path) -> None:
    """New ones are opened, old ones closed, those that stay are not touched."""
    async with serving_hub(tmp_path, HUB + RELAY + LISTEN) as hub:
        kept = address_of(hub)
        more = RELAY + 'listen = ["127.0.0.1:0", "[::1]:0"]\n'
        done = await reload(hub, HUB + more)
        assert done == Reloaded(("adapters.relay.listen",), ())
        first, second = (listener.address for listener in hub.core.listeners.of("relay"))
        assert first == kept
        assert await status(second) == 200
        done = await reload(hub, HUB + RELAY)
        assert done == Reloaded(("adapters.relay.listen",), ())
        assert await is_closed(first)
        assert await is_closed(second)
        assert await status(hub.main.address) == 200


async def test_limits_hold_for_who_comes_next(tmp_path: Path) -> None:
    """On the one port, on addresses of adapters, and on what an adapter opened itself."""
    both = "[adapters.both]\nenabled = true\n"
    toml = HUB + RELAY + LISTEN
    async with serving_hub(tmp_path, toml + both, plugins={"both": Both(0)}) as hub:
        tcp = hub.core.listeners.of("both")[1].address
        places = (hub.main.address, address_of(hub), tcp)
        inside = [await TcpPeer.connect(place) for place in places]
        await inside[2].send(b"hello\n")
        assert await inside[2].line() == b"hello\n"
        limits = "limits = { connections = 1 }\n"
        done = await reload(hub, HUB + limits + RELAY + LISTEN + limits + both + limits)
        assert done == Reloaded(("adapters.both.limits", "adapters.relay.limits", "hub.limits"), ())
        for place in places:
            peer = await TcpPeer.connect(place)
            await peer.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert await peer.rest() == b""
            await peer.close()
        await inside[2].send(b"still here\n")
        assert await inside[2].line() == b"still here\n"
        for peer in inside:
            await peer.close()
        await reload(hub, toml + both)
        assert await status(hub.main.address) == 200
        assert await works(tcp)


async def test_addresses_of_an_adapter_without_http_wait_for_a_restart(tmp_path: Path) -> None:
    """It opens them itself, when it starts."""
    both = HUB + "[adapters.both]\nenabled = true\n"
    async with serving_hub(tmp_path, both, plugins={"both": Both(0)}) as hub:
        done = await reload(hub, both + LISTEN)
        assert done == Reloaded((), ("adapters.both.listen",))


async def shown(address: Address) -> bytes:
    """Return the certificate a listener shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    peer = await TcpPeer.connect(address, tls=context)
    try:
        tls: ssl.SSLObject = peer.writer.get_extra_info("ssl_object")
        return tls.getpeercert(binary_form=True) or b""
    finally:
        await peer.close()


def der(files: Files) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.cert.read_text())


async def test_paths_of_an_adapter_change_with_its_restart(tmp_path: Path) -> None:
    """On the one port and on its own address; until then they are what they were."""
    async with serving_hub(tmp_path, HUB + RELAY + LISTEN) as hub:
        done = await reload(hub, HUB + RELAY + LISTEN + 'prefix = "/bus"\n')
        assert done == Reloaded((), ("adapters.relay.prefix",))
        places = (hub.main.address, address_of(hub))
        assert [await status(place) for place in places] == [200, 200]
        await hub.core.extensions.restart_adapter("relay")
        assert [await status(place, "/bus/logs") for place in places] == [200, 200]
        assert [await status(place) for place in places] == [404, 404]


@with_openssl
async def test_a_renewed_certificate_is_shown_after_a_reload(
    tmp_path: Path, files: Files, make: Callable[[str], Files]
) -> None:
    """The same files with other content, then other files; nobody who is connected notices."""
    renewed = make("renewed")
    for path in (files.cert, files.key):
        shutil.copy(path, tmp_path / f"hub{path.suffix}")
    tls = 'tls = { cert = "hub.pem", key = "hub.key" }\n'
    toml = HUB + tls + RELAY + LISTEN + tls
    async with serving_hub(tmp_path, toml) as hub:
        places = (hub.main.address, address_of(hub))
        assert [await shown(place) for place in places] == [der(files)] * 2
        inside = await TcpPeer.connect(hub.main.address, tls=files.client())
        for path in (renewed.cert, renewed.key):
            shutil.copy(path, tmp_path / f"hub{path.suffix}")
        assert await reload(hub, toml) == Reloaded((), ())
        assert [await shown(place) for place in places] == [der(renewed)] * 2
        await inside.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert (await inside.rest()).startswith(b"HTTP/1.1 200")
        await inside.close()
        other = f'tls = {{ cert = "{files.cert}", key = "{files.key}" }}\n'
        done = await reload(hub, HUB + other + RELAY + LISTEN + other)
        assert done == Reloaded(("adapters.relay.tls", "hub.tls"), ())
        assert [await shown(place) for place in places] == [der(files)] * 2


@with_openssl
async def test_a_certificate_that_cannot_be_used_stops_the_reload(
    tmp_path: Path, files: Files
) -> None:
    """With its line, and nothing of the rest holds."""
    tls = f'tls = {{ cert = "{files.cert}", key = "{files.key}" }}\n'
    async with serving_hub(tmp_path, HUB + tls) as hub:
        bad = 'tls = { cert = "no.pem", key = "no.key" }\n'
        with pytest.raises(ConfigError) as raised:
            await reload(hub, HUB + "max_body = 7\n" + bad + RELAY + bad)
        first, second = sorted(raised.value.problems)
        assert "hub.toml:4: hub.tls.cert: cannot read" in first
        assert "hub.toml:7: adapters.relay.tls.cert: cannot read" in second
        assert hub.core.config.hub.max_body != 7
        assert await shown(hub.main.address) == der(files)


@with_openssl
async def test_to_begin_to_encrypt_needs_a_restart(tmp_path: Path, files: Files) -> None:
    """Of the hub for its one port; of an adapter for its own addresses."""
    tls = f'tls = {{ cert = "{files.cert}", key = "{files.key}" }}\n'
    async with serving_hub(tmp_path, HUB + RELAY + LISTEN) as hub:
        done = await reload(hub, HUB + tls + RELAY + LISTEN + tls)
        assert done == Reloaded((), ("adapters.relay.tls", "hub.tls"))
        plain = address_of(hub)
        assert await status(plain) == 200
        await hub.core.extensions.restart_adapter("relay")
        assert await shown(address_of(hub)) == der(files)
        assert await is_closed(plain)
        assert await status(hub.main.address) == 200
