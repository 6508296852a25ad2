"""How much the container lets the hub take, of both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.config.container import container_bytes
from hubbub.config.models import HubSettings
from hubbub.rooms import memory_limit

MIB = 1024**2


def written(root: Path, files: dict[str, str]) -> Path:
    """Write the files of a system."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "300\n"}, 300),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n",
          "sys/fs/cgroup/a/memory.max": "70\n"}, 70),
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/memory.max": "5\n"}, 5),
        ({"proc/self/cgroup": "4:cpu:/d\n3:memory:/d\n",
          "sys/fs/cgroup/memory/d/memory.limit_in_bytes": "200\n",
          "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 200),
        ({"proc/self/cgroup": "3:memory:/not-seen-from-inside\n",
          "sys/fs/cgroup/memory/memory.limit_in_bytes": "100\n"}, 100),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "nonsense\n"}, None),
    ],
)  # fmt: skip
def test_the_least_limit_holds(tmp_path: Path, files: dict[str, str], wanted: int | None) -> None:
    """Of the group itself and of all above; version 1 says by a huge number that there is none."""
    assert container_bytes(written(tmp_path, files)) == wanted


@pytest.mark.parametrize(
    ("container", "set_to", "wanted"),
    [
        (None, None, 512 * MIB),
        (2048 * MIB, None, 512 * MIB),
        (1000 * MIB, None, 500 * MIB),
        (1000 * MIB, 900 * MIB, 900 * MIB),
    ],
)
def test_half_of_the_container_is_the_default(
    container: int | None, set_to: int | None, wanted: int
) -> None:
    """And never more than 512 MiB, unless it is set."""
    assert memory_limit(HubSettings(memory=set_to), container=container) == wanted
