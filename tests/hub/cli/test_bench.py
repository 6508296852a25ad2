"""`hubbub bench`: found in a checkout, explained elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.cli.app import main
from hubbub.cli.bench import find_checkout
from hubbub.cli.errors import CommandError


def test_arguments_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    """Names and options are those of the measurements; so is the exit code."""
    assert main(["bench", "nothing", "--rounds", "1"]) == 2
    assert "no benchmark 'nothing'; there are: publish, relay" in capfd.readouterr().err
    assert main(["bench", "--", "--help"]) == 0
    assert "--seconds" in capfd.readouterr().out


def test_without_a_checkout_it_says_what_is_needed(tmp_path: Path) -> None:
    """A folder without the measurements is passed over; without any, the way is told."""
    with pytest.raises(CommandError, match="clone the source"):
        find_checkout(tmp_path)
    checkout = Path(__file__).parents[3]
    assert find_checkout(tmp_path, checkout) == checkout
