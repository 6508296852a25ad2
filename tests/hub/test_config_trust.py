"""Settings of who may call: what they take, and what they say of what they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.config import load_config
from hubbub.errors import ConfigError


def written(folder: Path, line: str) -> Path:
    path = folder / "hub.toml"
    path.write_text(f"[hub]\n{line}\n", encoding="utf-8")
    return path


def test_they_are_read_as_they_are_compared(tmp_path: Path) -> None:
    """In lower case, without default ports and dots at the end."""
    hub = load_config(
        written(
            tmp_path,
            'origins = ["HTTPS://App.Example:443/", "http://h:8080", "null", "file://", "*"]\n'
            'hosts = ["Hub.LAN.", "[::1]"]\npublic_url = "https://Hub.example.org/base/"\n'
            'trusted_proxies = ["127.0.0.1", "10.1.2.3/8", "2001:db8::/32"]',
        )
    ).hub
    assert hub.origins == ("https://app.example", "http://h:8080", "null", "file://", "*")
    assert hub.hosts == ("hub.lan", "::1")
    assert hub.public_url == "https://Hub.example.org/base"
    assert hub.trusted_proxies == ("127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32")


def test_nothing_is_trusted_unless_it_is_written(tmp_path: Path) -> None:
    """The defaults name nobody."""
    hub = load_config(written(tmp_path, "port = 0")).hub
    assert (hub.origins, hub.hosts, hub.public_url, hub.trusted_proxies) == ((), (), "", ())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('origins = ["app.example"]', "is no web origin"),
        ('origins = ["https://app.example/path"]', "without a path"),
        ('origins = ["https://*.app.example"]', "is no web origin"),
        ('origins = ["https://user@app.example"]', "is no web origin"),
        ('origins = [""]', "is no web origin"),
        ('hosts = ["https://hub.lan"]', "is no host name"),
        ('hosts = ["hub.lan:17680"]', "without scheme and port"),
        ('hosts = ["[::1]:80"]', "without scheme and port"),
        ('hosts = ["*"]', "is no host name"),
        ('public_url = "hub.example.org"', "is no public address"),
        ('public_url = "ws://hub.example.org"', "is no public address"),
        ('public_url = "https://hub.example.org?x=1"', "is no public address"),
        ('public_url = "https://a@hub.example.org"', "is no public address"),
        ('trusted_proxies = ["proxy"]', "is no network and no IP address"),
        ('trusted_proxies = ["10.0.0.0/40"]', "is no network and no IP address"),
    ],
)
def test_mistakes_are_said_with_the_way_to_write_it(tmp_path: Path, line: str, said: str) -> None:
    """A name that would never match is worse than none."""
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, line))
    (problem,) = error.value.problems
    assert said in problem
    assert "hub.toml:2" in problem
