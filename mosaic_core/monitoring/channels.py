"""Where messages about alerts go, as `config/alerts.yaml` names it.

Values may hold `${NAME}` or `${NAME:-default}` of the environment. They are looked up when a
message is sent and nowhere kept, so that no secret is in settings, rows or logs.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from mosaic_core.errors import ConfigurationError
from mosaic_core.settings import build

PREFECT: Final = "prefect:"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """A URL that gets each message as a CloudEvent; signed when there is a `secret`."""

    required: ClassVar = ("url",)
    url: str
    secret: str = ""


@dataclass(frozen=True, kw_only=True)
class Slack:
    """An incoming webhook of Slack, Mattermost or whatever else reads `{"text": ...}`."""

    required: ClassVar = ("url",)
    url: str


@dataclass(frozen=True, kw_only=True)
class Teams:
    """A webhook of a Microsoft Teams workflow, which gets an adaptive card."""

    required: ClassVar = ("url",)
    url: str


@dataclass(frozen=True, kw_only=True)
class PagerDuty:
    """The integration key of a PagerDuty service (Events API v2)."""

    required: ClassVar = ("key",)
    key: str
    url: str = "https://events.pagerduty.com/v2/enqueue"


@dataclass(frozen=True, kw_only=True)
class Email:
    """A mail server and who gets mail from it; `to` separates several by commas."""

    required: ClassVar = ("host", "sender", "to")
    host: str
    sender: str
    to: str
    port: int = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password: str = ""


@dataclass(frozen=True, kw_only=True)
class PrefectBlock:
    """A notification block of Prefect, `type/name`; only a flow can send through it."""

    required: ClassVar = ("block",)
    block: str


Transport = Webhook | Slack | Teams | PagerDuty | Email | PrefectBlock
TRANSPORTS: Final[Mapping[str, type[Transport]]] = {
    "webhook": Webhook,
    "slack": Slack,
    "teams": Teams,
    "pagerduty": PagerDuty,
    "email": Email,
    "prefect": PrefectBlock,
}


@dataclass(frozen=True)
class Channel:
    """A name and what it stands for."""

    name: str
    transport: Transport

    @property
    def off(self) -> str:
        """Why nothing can be sent here: what the environment has not set; empty if it has."""
        absent = [field for field in self.transport.required if not self.value(field)]
        if not absent:
            return ""
        names = [_names(str(getattr(self.transport, field))) for field in absent]
        told = sorted({name for found in names for name in found})
        return f"off: {', '.join(absent)} is empty" + (f" (set {', '.join(told)})" if told else "")

    def value(self, field: str) -> str:
        """A setting with the environment's values in it; empty where those are not set."""
        return resolve(str(getattr(self.transport, field)))

    def hide(self, text: str) -> str:
        """`text` with `***` for whatever of this channel came from the environment."""
        secrets = set()
        for field in dataclasses.fields(self.transport):
            written = str(getattr(self.transport, field.name))
            if _names(written):
                secrets.add(resolve(written))
        secrets |= {
            self.value(f) for f in ("secret", "password", "key") if hasattr(self.transport, f)
        }
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def read_channels(content: object, where: str) -> dict[str, Channel]:
    """The channels of a mapping: name -> `kind:` and the settings of that kind.

    Raises:
        ConfigurationError: an unknown kind or setting; the nearest known one is named.
    """
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"{where}: {content!r}", "names with their settings below")
    return {str(name): _channel(str(name), c, f"{where}: {name}") for name, c in content.items()}


def _channel(name: str, content: object, where: str) -> Channel:
    if not isinstance(content, Mapping) or "kind" not in content:
        raise ConfigurationError(
            f"{where}: no kind", f"`kind:`, one of {', '.join(TRANSPORTS)}", "add it"
        )
    kind = content["kind"]
    if kind not in TRANSPORTS:
        near = difflib.get_close_matches(str(kind), TRANSPORTS, n=1)
        raise ConfigurationError(
            f"{where}: unknown kind {kind!r}",
            f"one of {', '.join(TRANSPORTS)}",
            f"did you mean {near[0]!r}?" if near else "",
        )
    settings = {key: value for key, value in content.items() if key != "kind"}
    return Channel(name, build(TRANSPORTS[kind], settings, where))


def prefect_channel(name: str) -> Channel:
    """The channel that `prefect:<type>/<name>` names by itself."""
    return Channel(name, PrefectBlock(block=name.removeprefix(PREFECT)))


def resolve(text: str) -> str:
    """`text` with the environment's values; a variable that is not set is empty."""
    return _VARIABLE.sub(lambda found: os.environ.get(found[1]) or found[2] or "", text)


def _names(text: str) -> list[str]:
    return [found[1] for found in _VARIABLE.finditer(text)]
