"""What arrives at each kind of receiver, and what is said when it does not."""

from __future__ import annotations

import dataclasses
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mosaic_core.monitoring.channels import Channel, read_channels
from mosaic_core.monitoring.message import Message, duration
from mosaic_core.monitoring.sending import NEEDS_FLOW, deliver
from tests.monitoring.receivers import Mailbox, Receiver, mail_server
from tests.servers import free_port

OPENED = datetime(2026, 11, 20, 8, tzinfo=UTC)
MESSAGE = Message(
    event="opened", id="alert-3-opened-0", kind="analysis-late", severity="warning",
    subject="hres 2026-11-20T00Z", text="no analysis from grib", opened=OPENED, when=OPENED,
    number=3, host="watcher", runbook="https://docs.example/runbook#analysis-late",
)  # fmt: skip
CLOSED = dataclasses.replace(
    MESSAGE, event="closed", id="alert-3-closed-0", when=OPENED + timedelta(minutes=80)
)
SECRETS = {"TEST_URL": "", "TEST_KEY": "topsecret-key", "TEST_PASSWORD": "topsecret-password"}


def channel(name: str, **settings: Any) -> Channel:
    return read_channels({name: settings}, "test")[name]


@pytest.fixture
def mail() -> Any:
    with mail_server() as box:
        yield box


def test_slack_gets_a_text(pager: Receiver) -> None:
    assert deliver(channel("c", kind="slack", url=pager.url), MESSAGE) == ""
    text = pager.got[0]["text"]
    assert text.startswith("*[warning] analysis-late hres 2026-11-20T00Z*\nno analysis from grib\n")
    assert "mosaic alerts ack 3" in text
    assert "runbook#analysis-late" in text


def test_teams_gets_a_card(pager: Receiver) -> None:
    assert deliver(channel("c", kind="teams", url=pager.url), CLOSED) == ""
    (attachment,) = pager.got[0]["attachments"]
    title, body = attachment["content"]["body"]
    assert title["text"] == "[warning] over: analysis-late hres 2026-11-20T00Z"
    assert title["color"] == "good"
    assert "after 1 h 20 min" in body["text"]


def test_pagerduty_resolves_the_incident_that_it_triggered(pager: Receiver) -> None:
    to = channel("c", kind="pagerduty", key="k", url=pager.url)
    assert [deliver(to, message) for message in (MESSAGE, CLOSED)] == ["", ""]
    trigger, resolve = pager.got
    assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
    assert trigger["dedup_key"] == resolve["dedup_key"] == MESSAGE.key
    assert trigger["routing_key"] == "k"
    assert trigger["payload"]["severity"] == "warning"
    assert trigger["payload"]["timestamp"] == "2026-11-20T08:00:00Z"


def test_test_of_pagerduty_leaves_no_incident_open(pager: Receiver) -> None:
    to = channel("c", kind="pagerduty", key="k", url=pager.url)
    assert deliver(to, dataclasses.replace(MESSAGE, event="test", severity="info")) == ""
    assert [page["event_action"] for page in pager.got] == ["trigger", "resolve"]


def test_mail_goes_to_every_recipient_and_makes_a_thread(mail: Mailbox) -> None:
    to = channel(
        "c", kind="email", host="127.0.0.1", port=mail.port, security="none",
        sender="mosaic@example.org", to="day@example.org, night@example.org",
        user="mosaic", password="x",
    )  # fmt: skip
    assert [deliver(to, message) for message in (MESSAGE, CLOSED)] == ["", ""]
    (sender, recipients, opened), (_, _, closed) = mail.letters
    assert sender == "mosaic@example.org"
    assert recipients == ["day@example.org", "night@example.org"]
    assert opened["Subject"] == "[warning] analysis-late hres 2026-11-20T00Z"
    assert "no analysis from grib" in opened.get_content()
    assert opened["References"] == closed["References"]
    assert opened["Message-ID"] != closed["Message-ID"]
    assert len(mail.logins) == 2


def test_recipient_that_is_refused_is_reported(mail: Mailbox) -> None:
    mail.refuse = "night"
    to = channel(
        "c", kind="email", host="127.0.0.1", port=mail.port, security="none",
        sender="mosaic@example.org", to="day@example.org, night@example.org",
    )  # fmt: skip
    assert deliver(to, MESSAGE) == "1 of the recipients were refused"
    assert [recipients for _, recipients, _ in mail.letters] == [["day@example.org"]]


def test_mail_is_not_sent_in_clear_text_unless_it_is_asked_for(mail: Mailbox) -> None:
    to = channel(
        "c", kind="email", host="127.0.0.1", port=mail.port, sender="a@b.c", to="d@e.f",
        user="mosaic", password="topsecret-password",
    )  # fmt: skip
    assert "STARTTLS" in deliver(to, MESSAGE)
    assert mail.letters == []
    assert mail.logins == []


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "webhook", "url": "${TEST_URL}", "secret": "${TEST_KEY}"},
        {"kind": "slack", "url": "${TEST_URL}"},
        {"kind": "teams", "url": "${TEST_URL}"},
        {"kind": "pagerduty", "key": "${TEST_KEY}", "url": "${TEST_URL}"},
        {"kind": "email", "host": "127.0.0.1", "port": 1, "security": "none", "user": "mosaic",
         "password": "${TEST_PASSWORD}", "sender": "a@b.c", "to": "d@e.f"},
    ],
    ids=lambda settings: settings["kind"],
)  # fmt: skip
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/topsecret-path",
        "nonsense-topsecret",
        "http://[topsecret",
        "ftp://x",
    ],
)
def test_problem_is_said_without_the_secret(
    settings: dict[str, Any],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "mosaic_core")
    for name, value in {**SECRETS, "TEST_URL": url.format(port=free_port())}.items():
        monkeypatch.setenv(name, value)
    problem = deliver(channel("c", **settings), MESSAGE)
    assert problem
    assert "topsecret" not in problem + caplog.text


def test_receiver_that_refuses_is_reported(pager: Receiver) -> None:
    pager.answer = 403
    for kind in ("webhook", "slack", "teams"):
        assert deliver(channel("c", kind=kind, url=pager.url), MESSAGE) == "answered 403"


def test_channel_that_is_off_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_URL", raising=False)
    to = channel("c", kind="slack", url="${TEST_URL}")
    assert deliver(to, MESSAGE) == "off: url is empty (set TEST_URL)"


def test_prefect_block_needs_the_flow() -> None:
    assert deliver(channel("c", kind="prefect", block="slack-webhook/ops"), MESSAGE) == NEEDS_FLOW


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h"), (4800, "1 h 20 min"),
     (90000, "1 d 1 h")],
)  # fmt: skip
def test_duration_is_said_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
