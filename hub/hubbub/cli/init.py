"""`hubbub init`: a first hub.toml, with everything in it explained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from hubbub.cli.errors import CommandError
from hubbub.cli.output import print_line, quiet_logs

__all__ = ["init"]

HEAD: Final = """\
# Settings of this hub. `hubbub check` tells what is wrong, with lines.
#
# Durations: "500ms" "30s" "10m" "1.5h" "7d". Sizes: "64KiB" "1MiB" "10MB". A secret is a string,
# or { file = "path" } beside this file. Stronger than this file: HUBBUB_HUB__PORT=18000 in the
# environment, and --set hub.port=18000 on the command line.

[hub]
name = "hub-1"
host = "127.0.0.1"              # loopback only; "0.0.0.0" opens the hub to every network
port = 17680                    # the one port: HTTP, WebSocket and Socket.IO of every adapter
data_dir = "var"                # database, admin token, logs
drain_timeout = "10s"           # how long a stopping hub waits for work under way

[log]
level = "info"                  # debug | info | warning | error
format = "auto"                 # auto: console on a terminal, else json

[store]
url = "sqlite:///{data_dir}/hub.db"   # or "postgresql+psycopg://user:password@host/database"
sync = "full"                   # full: survives loss of power; normal: survives a crash
retention = "30d"               # how long finished messages are kept

"""

ADAPTER: Final = """\
[adapters.{name}]
enabled = true
listen = []                     # more addresses that serve this adapter alone

"""

ROUTES: Final = """\
# Which messages go where, in this order. Without any, every adapter does what its protocol
# promises. `hubbub routes test SUBJECT --data JSON` tries the table of a running hub.
#
# [[routes]]
# name = "orders to the billing worker"
# match = "orders.>"            # "*" is one token, a final ">" one or more
# to = ["stream.billing"]       # addresses or patterns; "{subject.1}" is the second token
# where = { "data.total" = { gt = 100 } }
# deliver = "one"               # all | one | sticky
#
# [[routes.test]]               # run by `hubbub check`
# given = { subject = "orders.eu.created", data = { total = 250 } }
# to = ["stream.billing"]
"""

IGNORED: Final = """\
/var/
/secrets/
"""


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where; made if it is not there.")
    ] = Path(),
) -> None:
    """Write a first hub.toml, commented. And a .gitignore; what is there stays as it is."""
    files = {"hub.toml": HEAD + _adapters() + ROUTES, ".gitignore": IGNORED}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            path = folder / name
            if path.exists():
                print_line(f"{path} is there already, left as it is")
            else:
                path.write_text(text, encoding="utf-8")
                print_line(f"wrote {path}")
    except OSError as error:
        raise CommandError(f"cannot write in {folder}: {error.strerror}") from error
    where = "" if folder == Path() else f"cd {folder} && "
    print_line(f"next: {where}hubbub check && hubbub run")


def _adapters() -> str:
    """Return a table for each adapter that is installed with the hub."""
    from hubbub.cli.plugins import load_plugins

    quiet_logs()
    found = load_plugins().collect("adapters")
    names = [adapter.name for plugin, adapters in found if plugin.bundled for adapter in adapters]
    return "".join(ADAPTER.replace("{name}", name) for name in names)
