"""The four states, every transition of the page's section 2, the rules of 3.4, and random runs."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hubbub_kenko import wire
from hubbub_kenko.session import (
    ABUSE,
    ABUSE_FRAMES,
    ABUSE_S,
    HEARTBEAT_MISSED,
    NOT_REGISTERED,
    Close,
    Rules,
    Session,
    State,
    Todo,
)
from hubbub_kenko.wire import (
    Ack,
    Auth,
    BadRegister,
    Frame,
    FrameError,
    Heartbeat,
    Message,
    Ping,
    Register,
)

REGISTER = Register("bot")
SAY = Message("hello", "m_1")


def codes(todo: tuple[Todo, ...]) -> list[str]:
    """Return what is written, shortly."""
    said: list[str] = []
    for each in todo:
        if isinstance(each, Close):
            said.append(f"close {each.code}")
        elif isinstance(each, Frame):
            detail = ""
            if isinstance(each.data, dict):
                data = cast("dict[str, Any]", each.data)
                detail = str(data.get("code") or data.get("reason") or data.get("success", ""))
            said.append(f"{each.type} {detail}".strip())
        else:
            said.append(type(each).__name__)
    return said


def connected(**rules: Any) -> Session:
    return Session.open(Rules(**rules), now=0.0)


def deciding(**rules: Any) -> Session:
    return connected(**rules).receive(REGISTER, now=1.0)[0]


def idle(**rules: Any) -> Session:
    return deciding(**{"auto_start": False, **rules}).accept("app_1", now=2.0)[0]


def running(**rules: Any) -> Session:
    return deciding(**rules).accept("app_1", now=2.0)[0]


def test_the_numbers_are_the_originals() -> None:
    """They are stored."""
    assert [state.value for state in State] == [0, 1, 2, 3]


def test_registration_is_decided_accepted_and_started() -> None:
    """The reply, then the start."""
    session, todo = connected().receive(REGISTER, now=1.0)
    assert (session.state, todo) == (State.CONNECTED, (REGISTER,))
    session, todo = session.accept("app_1", now=2.0)
    assert (session.state, codes(todo)) == (State.RUNNING, ["register True", "start"])
    session, todo = deciding(auto_start=False).accept("app_1", now=2.0)
    assert (session.state, codes(todo)) == (State.IDLE, ["register True"])


def test_a_refused_registration_may_be_followed_by_another() -> None:
    """The state stays CONNECTED."""
    session, todo = deciding().reject("internal", "no")
    assert (session.state, codes(todo)) == (State.CONNECTED, ["register internal"])
    assert session.receive(REGISTER, now=3.0)[1] == (REGISTER,)
    session, todo = connected().receive(BadRegister("invalid_name", "x"), now=1.0)
    assert (session.deciding, codes(todo)) == (False, ["register invalid_name"])


@pytest.mark.parametrize("session", [deciding(), idle(), running()], ids=str)
def test_a_second_registration(session: Session) -> None:
    """Ignored on family W, answered false on family S, while one is decided as well."""
    for frame in (REGISTER, BadRegister("invalid_name", "x")):
        after, todo = session.receive(frame, now=5.0)
        assert (after.state, todo) == (session.state, ())
    after, todo = session.receive(Auth(REGISTER), now=5.0)
    assert after.state is session.state
    assert todo == (wire.auth_reply(False),)


def test_auth_is_answered_with_a_boolean_first() -> None:
    """Then come the hub's own events."""
    session, todo = connected(socketio=True).receive(Auth(REGISTER, "t"), now=1.0)
    assert codes(todo) == ["Auth"]
    _, todo = session.accept("app_1", now=2.0)
    assert todo[0] == wire.auth_reply(True)
    assert codes(todo)[1:] == ["register True", "start"]
    session, todo = session.reject("unauthorized", "no")
    assert todo[0] == wire.auth_reply(False)
    assert session.state is State.CONNECTED


@pytest.mark.parametrize(
    ("session", "message", "ack"),
    [
        (connected(), "error not_registered", "error not_registered"),
        (idle(), "error not_running", "Ack"),
        (running(), "Message", "Ack"),
    ],
    ids=["connected", "idle", "running"],
)
def test_what_may_be_said_when(session: Session, message: str, ack: str) -> None:
    """A message in RUNNING only, an acknowledgement once registered."""
    assert codes(session.receive(SAY, now=3.0)[1]) == [message]
    assert codes(session.receive(Ack("m_1"), now=3.0)[1]) == [ack]
    bad = FrameError("bad_data", "no content", "m_1")
    wanted = "error not_registered" if session.state is State.CONNECTED else "error bad_data"
    assert codes(session.refuse(bad, now=3.0)[1]) == [wanted]


def test_pings_are_answered_in_their_own_form() -> None:
    """And heartbeats if that is asked for."""
    assert connected().receive(Ping(), now=1.0)[1] == (wire.PONG,)
    assert connected().receive(Ping(bare=True), now=1.0)[1] == (wire.BARE_PONG,)
    assert connected().receive(Heartbeat(), now=1.0)[1] == ()
    assert connected(heartbeat_reply=True).receive(Heartbeat(), now=1.0)[1] == (wire.HEARTBEAT,)


def test_start_and_pause_hold_in_their_states_only() -> None:
    """Else nothing changes, and nothing is written."""
    for session in (connected(), running(), running().leave()):
        assert session.start() == (session, ())
    for session in (connected(), idle(), running().leave()):
        assert session.pause("admin") == (session, ())
    assert codes(idle().start()[1]) == ["start"]
    assert codes(running().pause("admin")[1]) == ["pause admin"]


def test_only_overload_recovers_by_itself() -> None:
    """What an operator paused stays so."""
    overloaded, _ = running().pause("overload")
    assert codes(overloaded.recover()[1]) == ["start"]
    paused, _ = running().pause("admin")
    assert paused.recover() == (paused, ())


def test_the_time_to_register_runs_from_accept() -> None:
    """No frame restarts it."""
    session = connected().receive(Heartbeat(), now=29.0)[0]
    assert session.expire(now=29.9) == (session, ())
    gone, todo = session.expire(now=30.0)
    assert (gone.state, codes(todo)) == (State.DISCONNECTED, [f"close {NOT_REGISTERED}"])


def test_silence_is_counted_from_registration_and_from_every_frame() -> None:
    """45 seconds; garbage counts as a sign of life. Never on Socket.IO."""
    session = running()
    assert session.due_at == 47.0
    session = session.receive(Heartbeat(), now=40.0)[0]
    session = session.refuse(FrameError("bad_json", "x"), now=50.0)[0]
    assert session.expire(now=94.9) == (session, ())
    assert codes(session.expire(now=95.0)[1]) == [f"close {HEARTBEAT_MISSED}"]
    assert running(silence_s=0.0).due_at is None


def test_garbage_is_abuse_at_the_tenth_within_a_minute() -> None:
    """Nine are told, the tenth is the last; older ones do not count."""
    session = running()
    bad = FrameError("bad_json", "x")
    for number in range(ABUSE_FRAMES - 1):
        session, todo = session.refuse(bad, now=10.0 + number)
        assert codes(todo) == ["error bad_json"]
    gone, todo = session.refuse(bad, now=10.0 + ABUSE_S - 0.1)
    assert codes(todo) == ["error bad_json", f"close {ABUSE}"]
    assert gone.state is State.DISCONNECTED
    later, todo = session.refuse(bad, now=10.0 + ABUSE_S)
    assert codes(todo) == ["error bad_json"]
    assert later.state is State.RUNNING
    other = session
    for _ in range(50):
        other, todo = other.refuse(FrameError("bad_type", "x"), now=20.0)
        assert codes(todo) == ["error bad_type"]


frames = st.sampled_from(
    [REGISTER, BadRegister("invalid_name", "x"), Auth(REGISTER), Heartbeat(), Ping(), SAY, Ack("m")]
)


class Runs(RuleBasedStateMachine):
    """Random runs against what the page says of order, states and silence."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.session = connected()
        self.told: list[str] = []
        self.registered = 0

    def take(self, step: tuple[Session, tuple[Todo, ...]]) -> None:
        before, (self.session, todo) = self.session, step
        self.told += codes(todo)
        if before.state is State.DISCONNECTED:
            assert self.session.state is State.DISCONNECTED
            assert todo == ()
        for each in todo:
            assert not isinstance(each, Message) or before.state is State.RUNNING
            assert not isinstance(each, Close) or self.session.state is State.DISCONNECTED
            assert not isinstance(each, Register | Auth) or self.session.deciding

    @rule(frame=frames, after_s=st.floats(0, 20))
    def receive(self, frame: Any, after_s: float) -> None:
        self.now += after_s
        self.take(self.session.receive(frame, now=self.now))

    @rule(code=st.sampled_from(["bad_json", "bad_type", "bad_data"]))
    def refuse(self, code: Any) -> None:
        self.take(self.session.refuse(FrameError(code, "x"), now=self.now))

    @precondition(lambda self: self.session.deciding)
    @rule(accepted=st.booleans())
    def decide(self, accepted: bool) -> None:
        before = self.session
        step = (
            before.accept("app", now=self.now) if accepted else before.reject("internal", "x")
        )  # fmt: skip
        self.take(step)
        self.registered += before.state is State.CONNECTED and accepted

    @rule(what=st.sampled_from(["start", "pause", "overload", "recover", "shutdown"]))
    def schedule(self, what: str) -> None:
        match what:
            case "start":
                self.take(self.session.start())
            case "recover":
                self.take(self.session.recover())
            case "overload":
                self.take(self.session.pause("overload"))
            case "shutdown":
                self.take(self.session.pause("shutdown"))
            case _:
                self.take(self.session.pause("admin"))

    @rule(after_s=st.floats(0, 60))
    def wait(self, after_s: float) -> None:
        self.now += after_s
        due_at = self.session.due_at
        alive = self.session.state is not State.DISCONNECTED
        self.take(self.session.expire(now=self.now))
        if alive and due_at is not None:
            assert (self.session.state is State.DISCONNECTED) == (self.now >= due_at)

    @invariant()
    def it_registers_once(self) -> None:
        assert self.registered <= 1
        assert self.told.count("register True") == self.registered

    @invariant()
    def starts_and_pauses_alternate(self) -> None:
        """The reply comes first, then a start, and from there on they take turns."""
        scheduled = [each.split()[0] for each in self.told if each.startswith(("start", "pause"))]
        assert all(kind == ("start", "pause")[place % 2] for place, kind in enumerate(scheduled))
        if scheduled:
            assert self.told.index("register True") < self.told.index("start")
        if self.session.state is State.RUNNING:
            assert scheduled[-1] == "start"
        if self.session.state is State.IDLE and scheduled:
            assert scheduled[-1] == "pause"

    @invariant()
    def nothing_is_remembered_without_end(self) -> None:
        assert len(self.session.bad_at) <= ABUSE_FRAMES


TestRuns = Runs.TestCase


@given(st.lists(frames, max_size=30))
def test_a_session_is_a_value(run: list[Any]) -> None:
    """The same run gives the same session, and changes none before it."""
    first = connected()
    kept = msgspec.structs.asdict(first)
    one = other = first
    for place, frame in enumerate(run):
        one = one.receive(frame, now=float(place))[0]
        other = other.receive(frame, now=float(place))[0]
    assert one == other
    assert msgspec.structs.asdict(first) == kept
