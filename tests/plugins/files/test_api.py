"""Files over HTTP: pages, rights, audits; and the files of the running hub itself stay private."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from hubbub.testing import running_hub
from tests.hub.web.conftest import FAST, Served, serving

API = "/api/files"
WRITABLE = FAST + '[plugins.files]\nwritable = true\nmax_file = "2MiB"\n'


async def listing(served: Served, folder: str, **more: Any) -> Any:
    """Return one page of a folder."""
    answer = await served.client.get(API, params={"path": folder, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_files_are_listed_written_read_moved_and_removed(tmp_path: Path) -> None:
    """The whole life of a file, each change in the audit."""
    async with serving(tmp_path / "hub", WRITABLE) as served:
        client = served.client
        roots = (await served.get(API))["items"]
        assert [root["name"] for root in roots] == ["data", "plugins", "logs"]
        made = await client.post(f"{API}/mkdir", json={"path": "data/notes"})
        assert (made.status_code, made.json()["kind"]) == (201, "folder")
        params = {"path": "data/notes/a b.txt"}
        put = await client.put(f"{API}/content", params=params, content="häl\n".encode())
        assert (put.status_code, put.json()["size"]) == (201, 5)
        put = await client.put(
            f"{API}/content", json={"path": "data/notes/a b.txt", "content": "again"}
        )
        assert put.status_code == 200
        got = await client.get(f"{API}/content", params=params)
        assert (got.text, got.headers["content-type"]) == ("again", "text/plain; charset=utf-8")
        assert got.headers["x-content-type-options"] == "nosniff"
        part = await client.get(f"{API}/content", params={**params, "offset": 1, "length": 2})
        assert part.text == "ga"
        body = {"from": "data/notes/a b.txt", "to": "logs/b.bin"}
        assert (await client.post(f"{API}/move", json=body)).status_code == 404  # no such folder
        await client.put(f"{API}/content", params={"path": "logs/x.bin"}, content=b"\0\xff")
        binary = await client.get(f"{API}/content", params={"path": "logs/x.bin"})
        assert binary.headers["content-type"] == "application/octet-stream"
        assert (await client.post(f"{API}/move", json=body)).json()["path"] == "logs/b.bin"
        gone = await client.delete(API, params={"path": "data/notes"})
        assert gone.status_code == 204
        acts = [one["act"] for one in (await served.get("/api/v1/audit", limit=6))["items"]]
        assert acts == [
            "files.delete", "files.move", "files.write", "files.write", "files.write",
            "files.mkdir",
        ]  # fmt: skip


async def test_a_listing_has_pages(tmp_path: Path) -> None:
    """Folders first; a page goes on where the one before ended, also when that entry is gone."""
    async with serving(tmp_path / "hub", WRITABLE) as served:
        folder = tmp_path / "hub" / "many"
        (folder / "z").mkdir(parents=True)
        for name in "abc":
            (folder / name).write_text(name)
        whole = await listing(served, "data/many")
        assert [item["name"] for item in whole["items"]] == ["z", "a", "b", "c"]
        assert whole["next"] is None
        page = await listing(served, "data/many", limit=2)
        assert [item["name"] for item in page["items"]] == ["z", "a"]
        (folder / "a").unlink()
        page = await listing(served, "data/many", limit=2, cursor=page["next"])
        assert [item["name"] for item in page["items"]] == ["b", "c"]


async def test_nothing_changes_unless_it_is_allowed(tmp_path: Path) -> None:
    """By default all of it is refused with 403, and only an administrator looks."""
    async with serving(tmp_path / "hub", FAST) as served:
        client = served.client
        (tmp_path / "hub" / "a.txt").write_text("a")
        where = {"path": "data/a.txt"}
        answers = [
            await client.put(f"{API}/content", params=where, content=b"b"),
            await client.post(f"{API}/mkdir", json={"path": "data/x"}),
            await client.post(f"{API}/move", json={"from": "data/a.txt", "to": "data/b"}),
            await client.delete(API, params=where),
        ]
        assert [(one.status_code, one.json()["code"]) for one in answers] == [
            (403, "read_only")
        ] * 4
        assert (tmp_path / "hub" / "a.txt").read_text() == "a"
        assert (await client.get(f"{API}/content", params=where)).text == "a"
        headers = await served.token("read")
        assert (await client.get(API, headers=headers)).status_code == 403
        assert (await client.get(API, headers={"authorization": ""})).status_code == 401


async def test_ways_out_are_refused_over_http(tmp_path: Path) -> None:
    """However a path is encoded."""
    async with serving(tmp_path / "hub", WRITABLE) as served:
        (tmp_path / "treasure.txt").write_text("gold")
        raw = [
            "data/../treasure.txt",
            "data%2f..%2ftreasure.txt",
            "data/%2e%2e/treasure.txt",
            "data/..%5ctreasure.txt",
            "data/%00/../../treasure.txt",
            quote(str(tmp_path / "treasure.txt"), safe=""),
            "data/..%c0%af../treasure.txt",
            "data/%252e%252e/treasure.txt",
        ]
        for path in raw:
            for method, where in (
                ("GET", f"{API}/content"), ("GET", API), ("DELETE", API), ("PUT", f"{API}/content"),
            ):  # fmt: skip
                answer = await served.client.request(method, f"{where}?path={path}", content=b"")
                assert 400 <= answer.status_code < 500, (method, path)
                assert "gold" not in answer.text
        assert (tmp_path / "treasure.txt").read_text() == "gold"


async def test_the_files_of_the_hub_are_private(tmp_path: Path) -> None:
    """Its database, its admin token, hub.toml, and files that hold secrets of a setting."""
    toml = WRITABLE + "[hub.tls]\ncert = 'cert.txt'\nkey = 'certs/mine.txt'\n"
    folder = tmp_path / "hub"
    (folder / "certs").mkdir(parents=True)
    (folder / "certs" / "mine.txt").write_text("key")
    (folder / "cert.txt").write_text("cert")
    async with running_hub(folder, toml):
        assert (folder / "admin.token").exists()  # made at a first start
    async with serving(folder, toml) as served:
        names = {item["name"] for item in (await listing(served, "data"))["items"]}
        assert names == {"cert.txt", "certs"}
        assert (await listing(served, "data/certs"))["items"] == []
        for name in ("hub.db", "hub.db-wal", "admin.token", "hub.toml", "certs/mine.txt"):
            where = {"path": f"data/{name}"}
            got = await served.client.get(f"{API}/content", params=where)
            assert (got.status_code, got.json()["code"]) == (403, "private_file")
            gone = await served.client.delete(API, params=where)
            assert gone.json()["code"] == "private_file"


async def test_bodies_at_their_edge(tmp_path: Path) -> None:
    """2 MiB are taken, over the limit of other bodies; a byte more is 413."""
    async with serving(tmp_path / "hub", WRITABLE) as served:
        params = {"path": "data/large.txt"}
        size = 2 * 1024**2
        put = await served.client.put(f"{API}/content", params=params, content=b"x" * size)
        assert (put.status_code, put.json()["size"]) == (201, size)
        put = await served.client.put(f"{API}/content", params=params, content=b"x" * (size + 1))
        assert put.status_code == 413
        assert (tmp_path / "hub" / "large.txt").stat().st_size == size
        for bad in (b"", b"[]", b"{", b'{"path":3}'):
            put = await served.client.put(f"{API}/content", content=bad)
            assert put.status_code in (400, 422)
        got = await served.client.get(f"{API}/content", params={**params, "length": "many"})
        assert got.status_code == 422
