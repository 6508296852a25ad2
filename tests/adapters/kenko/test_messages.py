"""Messages both ways: to applications, their answers, what they say themselves, tasks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from hubbub import Converter, Envelope, Route, hookimpl
from hubbub.cli.client import LiveHub  # noqa: F401  # pragma: no cover
from hubbub.testing import FakeClock, RecordingEndpoint, counted, serving_hub
