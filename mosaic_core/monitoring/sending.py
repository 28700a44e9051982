"""Sending one message through one channel. What goes wrong is said, never raised."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Any, Final

import httpx

from mosaic_core.monitoring.channels import (
    Channel,
    Email,
    PagerDuty,
    PrefectBlock,
    Slack,
    Teams,
    Webhook,
)
from mosaic_core.monitoring.message import Message, utc, without_passwords
from mosaic_core.publication.events import Target, notify

Deliverer = Callable[[Channel, Message], str]
TIMEOUT: Final = 10.0
NEEDS_FLOW: Final = "goes through a Prefect block, which only the flow `watch` can use"
_ACTIONS: Final = {"closed": "resolve"}
_SEVERITIES: Final = {"critical": "critical", "warning": "warning", "info": "info"}


def deliver(channel: Channel, message: Message) -> str:
    """Send a message; returns what went wrong, or nothing. The problem holds no secret."""
    if channel.off:
        return channel.off
    problem = _send(channel, message)
    return without_passwords(channel.hide(problem))


def _send(channel: Channel, message: Message) -> str:
    transport = channel.transport
    if isinstance(transport, Webhook):
        target = Target(
            "webhook", channel.value("url"), channel.value("secret") or None, 1, TIMEOUT
        )
        (delivery,) = notify(message.as_cloud_event(), [target])
        return delivery.problem
    if isinstance(transport, Slack):
        return _post(channel, {"text": f"*{message.title}*\n{message.body}"})
    if isinstance(transport, Teams):
        return _post(channel, _card(message))
    if isinstance(transport, PagerDuty):
        problem = _post(channel, _page(message, channel.value("key")))
        if message.event == "test" and not problem:
            return _post(
                channel, {**_page(message, channel.value("key")), "event_action": "resolve"}
            )
        return problem
    if isinstance(transport, Email):
        return _mail(channel, transport, message)
    assert isinstance(transport, PrefectBlock)
    return NEEDS_FLOW


def _post(channel: Channel, document: dict[str, Any]) -> str:
    try:
        reply = httpx.post(channel.value("url"), json=document, timeout=TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{type(error).__name__}: {error}"
    return "" if reply.is_success else f"answered {reply.status_code}"


def _card(message: Message) -> dict[str, Any]:
    colour = {"critical": "attention", "warning": "warning"}.get(message.severity, "default")
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {
                "type": "TextBlock",
                "text": message.title,
                "weight": "bolder",
                "wrap": True,
                "color": "good" if message.event == "closed" else colour,
            },
            {"type": "TextBlock", "text": message.body.replace("\n", "\n\n"), "wrap": True},
        ],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [attachment]}


def _page(message: Message, key: str) -> dict[str, Any]:
    """Events API v2: https://developer.pagerduty.com/docs/send-alert-event"""
    return {
        "routing_key": key,
        "event_action": _ACTIONS.get(message.event, "trigger"),
        "dedup_key": message.key,
        "client": "mosaic-forecast",
        "payload": {
            "summary": f"{message.title}: {message.text}"[:1024],
            "source": message.host or "mosaic",
            "severity": _SEVERITIES[message.severity],
            "timestamp": utc(message.when),
            "class": message.kind,
            "group": str(message.cycle or ""),
            "custom_details": {"text": message.body, "opened": utc(message.opened)},
        },
    }


def _mail(channel: Channel, transport: Email, message: Message) -> str:
    context = ssl.create_default_context()
    host, user = channel.value("host"), channel.value("user")
    server: smtplib.SMTP
    try:
        if transport.security == "tls":
            server = smtplib.SMTP_SSL(host, transport.port, timeout=TIMEOUT, context=context)
        else:
            server = smtplib.SMTP(host, transport.port, timeout=TIMEOUT)
        with server:
            if transport.security == "starttls":
                server.starttls(context=context)
            if user:
                server.login(user, channel.value("password"))
            refused = server.send_message(_letter(channel, message))
    except smtplib.SMTPResponseException as error:
        return f"{type(error).__name__}: {error.smtp_code} {_text(error.smtp_error)}"
    except smtplib.SMTPRecipientsRefused as error:
        return f"every recipient was refused ({len(error.recipients)})"
    except (smtplib.SMTPException, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{len(refused)} of the recipients were refused" if refused else ""


def _letter(channel: Channel, message: Message) -> EmailMessage:
    sender = channel.value("sender")
    domain = sender.rpartition("@")[2] or "mosaic"
    letter = EmailMessage()
    letter["Subject"] = message.title
    letter["From"] = sender
    letter["To"] = ", ".join(part.strip() for part in channel.value("to").split(","))
    letter["Date"] = format_datetime(message.when)
    letter["Message-ID"] = make_msgid(domain=domain)
    # Every message about one alert answers the same one, so that mail programs show a thread.
    letter["References"] = f"<{message.key.replace('/', '.').replace(' ', '.')}@{domain}>"
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(message.body)
    return letter


def _text(answer: bytes | str) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
