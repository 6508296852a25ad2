"""`hubbub tasks`: work with a result."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer

from hubbub.cli.answers import Json
from hubbub.cli.client import HubClient, part
from hubbub.cli.listing import Columns, show_answer, show_list, show_one
from hubbub.cli.options import DEFAULT_URL, AsJson, Limit, Token, Url, read_data, read_labels
from hubbub.cli.output import clean, note, print_json, print_line

__all__ = ["FINAL", "group"]

FINAL: Final = frozenset({"completed", "failed", "timeout", "cancelled"})
"""States in which nothing more will happen."""

COLUMNS: Final[Columns] = {
    "ID": "task_id",
    "TYPE": "task_type",
    "STATE": "state",
    "ATTEMPT": "attempt",
    "WORKER": "endpoint",
    "CREATED": "created_at",
    "ERROR": "error",
}

FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 1.0

TaskId = Annotated[str, typer.Argument(metavar="ID", help="Id of the task.")]

group = typer.Typer(
    help="Tasks: work that one worker does and answers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@group.command("ls")
def ls(
    state: Annotated[
        str | None,
        typer.Option(
            "--state", help="queued, dispatched, completed, failed, timeout or cancelled."
        ),
    ] = None,
    task_type: Annotated[str | None, typer.Option("--type", help="Task type.")] = None,
    limit: Limit = 100,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """List tasks, newest first."""
    with HubClient(url, token) as hub:
        found = hub.items("/api/v1/tasks", limit, state=state, task_type=task_type)
    show_list(
        found, COLUMNS, as_json=as_json, empty="no such task; `hubbub tasks submit` makes one"
    )


@group.command("show")
def show(
    task_id: TaskId, url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False
) -> None:
    """Show one task; `hubbub explain ID` tells its whole story."""
    with HubClient(url, token) as hub:
        task = hub.get(f"/api/v1/tasks/{part(task_id)}")
    parts = {} if as_json else {"attempts": None, "deliveries": None}
    show_one({**task, **parts}, as_json=as_json)


@group.command("submit")
def submit(  # noqa: PLR0913  # what a task can say
    task_type: Annotated[str, typer.Argument(help="What kind of work, such as render.")],
    *,
    params: Annotated[
        str | None,
        typer.Option("--params", metavar="JSON", help="What the worker needs; @FILE or - too."),
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="The task in words.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="A label the worker must have."),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="ADDRESS", help="This worker, or a pattern.")
    ] = None,
    priority: Annotated[int | None, typer.Option("--priority", min=0, max=9)] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="How long one attempt may take.")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option("--max-attempts", min=1)] = None,
    not_before: Annotated[
        str | None, typer.Option("--not-before", help="Earliest time, or a duration from now.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the result; exit 1 unless it is completed.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Give work to a worker."""
    members: dict[str, object] = {
        "text": text,
        "labels": read_labels(label),
        "to": to,
        "priority": priority,
        "timeout": timeout,
        "max_attempts": max_attempts,
        "not_before": not_before,
    }
    body = {
        "task_type": task_type,
        "params": read_data(params if params is not None else "{}", option="--params"),
        **{name: value for name, value in members.items() if value not in (None, [], {})},
    }
    with HubClient(url, token) as hub:
        task = hub.post("/api/v1/tasks", body)
        if wait:
            task = _finished(hub, task["task_id"])
    _tell(task, as_json=as_json)
    if wait and task["state"] != "completed":
        raise typer.Exit(1)


def _finished(hub: HubClient, task_id: str) -> Json:
    """Return a task once it is final."""
    wait_s = FIRST_WAIT_S
    while True:
        task = hub.get(f"/api/v1/tasks/{part(task_id)}")
        if task["state"] in FINAL:
            return task
        time.sleep(wait_s)
        wait_s = min(wait_s * 1.5, LONGEST_WAIT_S)


def _tell(task: Json, *, as_json: bool) -> None:
    task_id = clean(task.get("task_id") or task.get("id"))
    if as_json:
        print_json(task)
    elif task["state"] == "completed":
        print_json(task.get("result"))
    else:
        print_line(f"{task_id} {clean(task['state'])}")
        if task["state"] in FINAL:
            note(
                f"hubbub: task {task_id} is {clean(task['state'])}: {clean(task.get('error'))}; "
                f"`hubbub explain {task_id}` tells how it came to that"
            )


@group.command("cancel")
def cancel(
    task_id: TaskId, url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False
) -> None:
    """End a task that is not finished."""
    _act(task_id, "cancel", url, token, as_json=as_json)


@group.command("retry")
def retry(
    task_id: TaskId, url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False
) -> None:
    """Run a finished task again."""
    _act(task_id, "retry", url, token, as_json=as_json)


def _act(task_id: str, act: str, url: str, token: str | None, *, as_json: bool) -> None:
    with HubClient(url, token) as hub:
        task = hub.post(f"/api/v1/tasks/{part(task_id)}/{act}")
    show_answer(task, f"{clean(task_id)} {clean(task.get('state'))}", as_json=as_json)
