"""From hub.toml, the environment and --set to one checked Config."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import Field

from hubbub.config import (
    AdapterSettings,
    Address,
    Config,
    Duration,
    HubSettings,
    Secret,
    Settings,
    Size,
    load_config,
)
from hubbub.errors import ConfigError

ROOT = Path(__file__).parents[2]
Load = Callable[..., Config]


class Key(Settings):
    name: str
    key: Secret


class RelaySettings(AdapterSettings):
    prefix: str = "/api/relay"
    mirror_file: str = ""
    password: Secret = Secret("")
    api_keys: tuple[Key, ...] = ()
    max_body_bytes: Size = 1024
    lease: Duration = Field(default=60.0, gt=0)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a text as hub.toml from an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def from_text(
        text: str = "", *overrides: str, environ: Mapping[str, str] | None = None
    ) -> Config:
        Path("hub.toml").write_text(text, encoding="utf-8")
        return load_config(Path("hub.toml"), overrides=overrides, environ=environ or {})

    return from_text


def problems(call: Callable[[], object]) -> Sequence[str]:
    """Return the lines of the ConfigError that a call raises."""
    with pytest.raises(ConfigError) as caught:
        call()
    return caught.value.problems


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub.toml in the working directory is no error."""
    monkeypatch.chdir(tmp_path)
    config = load_config(None, environ={})
    assert config.hub == HubSettings()
    assert (config.hub.port, config.hub.max_body, config.hub.hook_budget) == (17680, 1048576, 0.05)
    assert config.store_url == "sqlite:///var/hub.db"
    assert config.routes == ()
    assert config.file is None


def test_hub_toml_of_the_working_directory_is_found(load: Load) -> None:
    """Without a path the file beside us is read."""
    load("[hub]\nport = 5\n")
    assert load_config(None, environ={}).hub.port == 5


def test_set_beats_environment_beats_file_beats_default(load: Load) -> None:
    """Each layer wins over the next."""
    text, environ = "[hub]\nport = 1\n", {"HUBBUB_HUB__PORT": "2"}
    assert load().hub.port == 17680
    assert load(text).hub.port == 1
    assert load(text, environ=environ).hub.port == 2
    assert load(text, "hub.port=3", "hub.port=4", environ=environ).hub.port == 4


def test_data_dir_is_filled_into_the_url(load: Load) -> None:
    """The database follows the data directory."""
    assert load("", "hub.data_dir=/srv/hub").store_url == "sqlite:////srv/hub/hub.db"


@pytest.mark.parametrize("name", ["12", "true", "hub-2", "2026-01-02", "'x'"])
def test_text_from_outside_needs_no_quotes(load: Load, name: str) -> None:
    """What reads as another TOML value is taken as text where text is wanted."""
    assert load("", f"hub.name={name}").hub.name == name.strip("'")


def test_list_from_outside_may_be_written_with_commas(load: Load) -> None:
    """A list of TOML does as well."""
    wanted = (Address("127.0.0.1", 8008), Address("::1", 0))
    for text in ("127.0.0.1:8008, [::1]:0", '["127.0.0.1:8008", "[::1]:0"]'):
        config = load("", environ={"HUBBUB_ADAPTERS__RELAY__LISTEN": text})
        assert config.section("adapters", "relay", RelaySettings).listen == wanted


def test_member_of_a_list_is_set_by_its_number(load: Load) -> None:
    """Routes of the file can be changed from outside."""
    text = '[[routes]]\nname = "a"\nmatch = "x"\nto = ["y"]\n'
    assert load(text, "routes.0.attempts=3").routes[0].attempts == 3
    assert problems(lambda: load(text, "routes.1.attempts=3")) == [
        "--set routes.1.attempts: routes.1.attempts: '1' is no member; the list has 1, from 0 on"
    ]


def test_variables_of_the_commands_and_of_others_are_no_settings(load: Load) -> None:
    """What has no double underscore is ignored, as orchestrators set such names."""
    names = ("URL", "TOKEN", "ADMIN_TOKEN", "ADMIN_TOKEN_FILE", "CONFIG", "PORT", "SERVICE_HOST")
    assert (
        load("", environ={f"HUBBUB_{name}": "tcp://10.0.0.1" for name in names}).hub.port == 17680
    )


BAD_FILES = {
    "unknown key": ("[hub]\n\nprot = 1", "hub.toml:3: hub.prot: unknown key; did you mean 'port'?"),
    "unknown table": (
        "[adapter.relay]",
        "hub.toml:1: adapter: unknown key; did you mean 'adapters'?",
    ),
    "far from any key": (
        "[log]\nzzz = 1",
        "hub.toml:2: log.zzz: unknown key; known are file_size, files, format, level",
    ),
    "wrong type": (
        "hub.port = 'many'",
        "hub.toml:1: hub.port: should be a valid integer, unable to parse string as an integer",
    ),
    "boolean for a number": (
        "[hub]\nport = true",
        "hub.toml:2: hub.port: should be a number, not true or false",
    ),
    "no list": ("[hub]\nplugins = 'a'", "hub.toml:2: hub.plugins: should be a list, such as [...]"),
    "no table": ("hub = 5", "hub.toml:1: hub: should be a table"),
    "no tables": ("adapters = 5", "hub.toml:1: adapters: should be a table"),
    "port too high": (
        "[hub]\nport = 65536",
        "hub.toml:2: hub.port: should be less than or equal to 65535",
    ),
    "choice": (
        "[log]\nlevel = 'loud'",
        "hub.toml:2: log.level: should be 'debug', 'info', 'warning' or 'error'",
    ),
    "backoff": (
        "[hub]\nbackoff = '2h'",
        "hub.toml:1: hub: backoff is longer than backoff_max; lower it, or raise backoff_max",
    ),
    "database": (
        "[store]\nurl = 'mysql://u:hunter2@h/d'",
        (
            "hub.toml:2: store.url: is not a database URL; write sqlite:///path or "
            "postgresql+psycopg://user:password@host/database"
        ),
    ),
    "missing": (
        "\n[[routes]]\nname = 'a'\nto = ['b']",
        "hub.toml:2: routes.0.match: is missing; add it",
    ),
    "engine": (
        "[engine]\nkind = 'nats'",
        'hub.toml:1: engine: kind "nats" needs url, such as "nats://127.0.0.1:4222"',
    ),
    "retention rule": (
        "[[store.retention_rules]]\nsubject = 'a'",
        "hub.toml:1: store.retention_rules.0: limits nothing; give age, count or bytes",
    ),
    "syntax": (
        "[hub]\nport 5",
        "hub.toml:2: is not TOML: Expected '=' after a key in a key/value pair (column 6)",
    ),
    "syntax at the end": ("[hub]\nname = [1,\n\n", "hub.toml:2: is not TOML: "),
}


@pytest.mark.parametrize(("text", "line"), BAD_FILES.values(), ids=BAD_FILES)
def test_mistake_in_the_file_is_named_with_its_line(load: Load, text: str, line: str) -> None:
    """One mistake is one line: where, what, and what to do."""
    (found,) = problems(lambda: load(text))
    assert found == line or (line.endswith(": ") and found.startswith(line))


BAD_OVERRIDES: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "set": (("hub.nmae=x",), {}, "--set hub.nmae: hub.nmae: unknown key; did you mean 'name'?"),
    "set too high": (
        ("hub.port=70000",),
        {},
        "--set hub.port: hub.port: should be less than or equal to 65535",
    ),
    "set without value": (
        ("hub.port:hunter2",),
        {},
        "--set hub.port: cannot be understood; write table.key=value, such as --set hub.port=18000",
    ),
    "set without key": (
        ("=5",),
        {},
        "--set : cannot be understood; write table.key=value, such as --set hub.port=18000",
    ),
    "set below no table": (
        ("hub.port=5", "hub.port.x=1"),
        {},
        "--set hub.port.x: hub.port.x: has no 'x' in it, it is no table",
    ),
    "environment": (
        (),
        {"HUBBUB_HUB__PORT": "x"},
        (
            "environment HUBBUB_HUB__PORT: hub.port: should be a valid integer, "
            "unable to parse string as an integer"
        ),
    ),
    "environment, unknown table": (
        (),
        {"HUBBUB_HUBB__PORT": "1"},
        "environment HUBBUB_HUBB__PORT: hubb: unknown key; did you mean 'hub'?",
    ),
    "environment, no file": (
        (),
        {"HUBBUB_STORE__URL_FILE": "none"},
        (
            "environment HUBBUB_STORE__URL_FILE: store.url: "
            "cannot read the secret file none: No such file or directory"
        ),
    ),
}


@pytest.mark.parametrize(
    ("overrides", "environ", "line"), BAD_OVERRIDES.values(), ids=BAD_OVERRIDES
)
def test_mistake_from_outside_is_named_with_its_origin(
    load: Load, overrides: tuple[str, ...], environ: dict[str, str], line: str
) -> None:
    """The flag or variable stands in the place of the line."""
    assert problems(lambda: load("[hub]\n", *overrides, environ=environ)) == [line]


def test_all_mistakes_are_told_at_once(load: Load) -> None:
    """The file, the environment and a flag are complained about together."""
    text = "[hub]\nport = -1\ntimeout = 'soon'\n[log]\nlevl = 'info'\n"
    found = problems(lambda: load(text, "hub.name=a b", environ={"HUBBUB_STORE__SYNC": "no"}))
    assert [line.split(": ")[0] for line in sorted(found)] == [
        "--set hub.name",
        "environment HUBBUB_STORE__SYNC",
        "hub.toml:2",
        "hub.toml:3",
        "hub.toml:5",
    ]


def test_route_names_are_unique(load: Load) -> None:
    """The second route of a name is told where the first one is."""
    route = '[[routes]]\nname = "a"\nmatch = "x"\nto = ["y"]\n'
    assert problems(lambda: load(route + route)) == [
        "hub.toml:6: routes.1.name: 'a' is taken by the route at hub.toml:2; give it its own name"
    ]


def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    """A file that was asked for must be there, and be text."""
    (found,) = problems(lambda: load_config(tmp_path / "none.toml", environ={}))
    assert found.startswith(f"{tmp_path}/none.toml: cannot read it: No such file or directory; ")
    (tmp_path / "hub.toml").write_bytes(b"a = 1\nb = '\xff'\n")
    (found,) = problems(lambda: load_config(tmp_path / "hub.toml", environ={}))
    assert found == f"{tmp_path}/hub.toml:2: is not UTF-8 text; save it as UTF-8"


def test_section_is_read_with_the_model_of_its_owner(load: Load, tmp_path: Path) -> None:
    """File, environment and flags meet in the table of an adapter."""
    (tmp_path / "key").write_text("hunter2\n")
    config = load(
        "[adapters.relay]\nenabled = true\nlease = '5m'\n"
        "api_keys = [ { name = 'm', key = { file = 'key' } } ]\n",
        "adapters.relay.prefix=/relay",
        environ={
            "HUBBUB_ADAPTERS__RELAY__PASSWORD_FILE": str(tmp_path / "key"),
            "HUBBUB_ADAPTERS__RELAY__MIRROR_FILE": "mirror.jsonl",
        },
    )
    relay = config.section("adapters", "relay", RelaySettings)
    assert (relay.enabled, relay.prefix, relay.lease) == (True, "/relay", 300.0)
    assert relay.api_keys[0].key.reveal() == relay.password.reveal() == "hunter2"
    assert relay.mirror_file == "mirror.jsonl"


def test_section_that_nobody_mentions_has_the_defaults(load: Load) -> None:
    """An adapter without a table is off."""
    assert load().section("adapters", "relay", RelaySettings) == RelaySettings()


def test_mistake_in_a_section_has_its_line(load: Load) -> None:
    """The second pass complains like the first one."""
    config = load(
        "[adapters.relay]\nlisen = []\nlease = 0\n[[adapters.relay.api_keys]]\nkey = 'x'\n"
    )
    assert sorted(problems(lambda: config.section("adapters", "relay", RelaySettings))) == [
        "hub.toml:2: adapters.relay.lisen: unknown key; did you mean 'listen'?",
        "hub.toml:3: adapters.relay.lease: should be greater than 0",
        "hub.toml:4: adapters.relay.api_keys.0.name: is missing; add it",
    ]


def test_tables_that_nobody_claims_are_errors(load: Load) -> None:
    """A name close to a loaded one is suggested."""
    config = load(
        "[adapters.relay]\n[adapters.relai]\n[plugins.my-tool]\n",
        environ={"HUBBUB_PLUGINS__MY_TOOL__X": "1", "HUBBUB_ADAPTERS__KENK__ENABLED": "true"},
    )
    assert config.names("adapters") == ("relay", "relai", "kenk")
    assert config.names("plugins") == ("my-tool",)
    assert problems(
        lambda: config.check_sections({"adapters": {"relay", "kenko"}, "plugins": {"my-tool"}})
    ) == [
        "hub.toml:2: adapters.relai: no adapter of this name is loaded; did you mean 'relay'?",
        (
            "environment HUBBUB_ADAPTERS__KENK__ENABLED: adapters.kenk: "
            "no adapter of this name is loaded; did you mean 'kenko'?"
        ),
    ]
    config.check_sections(
        {"adapters": {"relay", "relai", "kenk"}, "plugins": {"my_tool", "my-tool"}}
    )


def test_variable_reaches_a_section_with_a_dash_in_its_name(load: Load) -> None:
    """The dash is written as an underscore, mentioned in the file or not."""
    for text in ("", "[plugins.my-tool]\n"):
        config = load(text, environ={"HUBBUB_PLUGINS__MY_TOOL__PREFIX": "/x"})
        assert config.section("plugins", "my-tool", RelaySettings).prefix == "/x"
        config.check_sections({"plugins": {"my-tool"}})


def test_secrets_stay_out_of_reprs_and_errors(load: Load) -> None:
    """Neither a config, nor an error, nor its traceback shows a secret."""
    secret = f"hunter{2}"
    config = load(
        f"[store]\nurl = 'postgresql://u:{secret}@h/d'\n"
        f"[adapters.relay]\npassword = '{secret}'\n"
        f"api_keys = [ {{ name = 5, key = ['{secret}'] }} ]\n",
        f"adapters.relay.api_key={secret}",
    )
    assert secret not in repr(config)
    assert secret in config.store_url
    for call in (
        lambda: config.section("adapters", "relay", RelaySettings),
        lambda: load(f"[adapters.relay]\npassword = '{secret}'\n[store]\nurl = '{secret}'\n"),
        lambda: load("", f"adapters.relay:{secret}=5"),
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        assert secret not in "".join(traceback.format_exception(caught.value))


def test_place_tells_where_a_setting_came_from(load: Load) -> None:
    """Errors that are found later can still name the line."""
    config = load("[hub]\nport = 1\n", "hub.name=x")
    assert config.place("hub", "port") == "hub.toml:2"
    assert config.place("hub", "name") == "--set hub.name"
    assert config.place("log", "level") == "hub.toml"


def test_shipped_hub_toml_loads() -> None:
    """It says what the defaults are, and needs no file beside it."""
    config = load_config(ROOT / "hub.toml", environ={})
    assert config.hub == HubSettings()
    assert config.store_url == "sqlite:///var/hub.db"
    assert "relay" in config.names("adapters")
