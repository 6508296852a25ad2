"""Measure the hub: `python -m tests.bench [names...]`. docs/performance.md says what it means."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from tests.bench.cases import ALL
from tests.bench.plan import Plan
from tests.bench.profile import PATHS, profile
from tests.bench.table import Line, print_lines


def main() -> int:
    """Run what was asked for; returns the exit code."""
    given = _arguments()
    plan = Plan(seconds=given.seconds, rounds=given.rounds, tasks=given.tasks, where=given.dir)
    if given.profile is not None:
        profile(plan, given.profile, native=given.native)
        return 0
    unknown = [name for name in given.names if name not in ALL]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(ALL)}", file=sys.stderr)
        return 2
    lines: list[Line] = []
    for name in given.names or ALL:
        print(f"{name} ...", file=sys.stderr, flush=True)
        lines += ALL[name](plan)
    if given.json:
        print(msgspec.json.format(msgspec.json.encode(lines)).decode())
    else:
        print_lines(lines)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(ALL)}; all when none is given")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one sample")
    parser.add_argument("--rounds", type=int, default=3, help="samples of each side, in turns")
    parser.add_argument(
        "--tasks", type=int, default=1_000_000, help="stored tasks in `growth`, sent in `memory`"
    )
    parser.add_argument("--dir", type=Path, help="folder for databases, on the disk to be measured")
    parser.add_argument("--json", action="store_true", help="print lines as JSON")
    parser.add_argument("--profile", choices=PATHS, help="print where the hub's time goes instead")
    parser.add_argument("--native", action="store_true", help="with --profile: C functions too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
