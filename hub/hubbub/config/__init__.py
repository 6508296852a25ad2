"""hub.toml as typed models, in two passes: the core, then each table once its owner is loaded.

config = load_config(Path("hub.toml"))
relay = config.section("adapters", "relay", RelaySettings)
config.check_sections({"adapters": {"relay"}, "plugins": set()})
"""

from __future__ import annotations

from hubbub.config.describe import Row, describe
from hubbub.config.guards import EndpointGuardSettings, GuardsSettings, SourceGuardSettings
from hubbub.config.loading import Config, load_config
from hubbub.config.models import (
    EngineSettings,
    HubSettings,
    LogSettings,
    RetentionRule,
    StoreSettings,
)
from hubbub.config.origins import WebOrigin, is_loopback_host
from hubbub.config.routes import RouteCaseSettings, RouteSettings, kept_route
from hubbub.config.settings import (
    AdapterSettings,
    ClientTlsSettings,
    LimitSettings,
    Settings,
    TlsSettings,
)
from hubbub.config.units import Address, Duration, Secret, Size, duration_text, size_text

__all__ = [
    "AdapterSettings",
    "Address",
    "ClientTlsSettings",
    "Config",
    "Duration",
    "EndpointGuardSettings",
    "EngineSettings",
    "GuardsSettings",
    "HubSettings",
    "LimitSettings",
    "LogSettings",
    "RetentionRule",
    "RouteCaseSettings",
    "RouteSettings",
    "Row",
    "Secret",
    "Settings",
    "Size",
    "SourceGuardSettings",
    "StoreSettings",
    "TlsSettings",
    "WebOrigin",
    "describe",
    "duration_text",
    "is_loopback_host",
    "kept_route",
    "load_config",
    "size_text",
]
