"""Notices of publication: CloudEvents 1.0, structured JSON, to webhooks and SNS topics.

Two kinds: the first lead times can be read; the cycle is whole. A notice that cannot be delivered
never takes a forecast back: `notify` returns what became of each, for the caller to record.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import httpx

from mosaic_core.publication.manifest import Manifest
from mosaic_core.publication.progress import InProgress

FIRST_STEPS: Final = "io.github.mosaic-forecast.forecast.first-steps.v1"
PUBLISHED: Final = "io.github.mosaic-forecast.forecast.published.v1"
SIGNATURE_HEADER: Final = "X-Mosaic-Signature-256"


@dataclass(frozen=True)
class Target:
    """Where notices go.

    Attributes:
        kind: `webhook` (address is a URL) or `sns` (address is the ARN of a topic).
        secret: when set, a webhook gets `X-Mosaic-Signature-256: sha256=<HMAC of the body>`.
        attempts: how often delivery is tried, with growing pauses.
        timeout: seconds for one attempt.
    """

    kind: Literal["webhook", "sns"]
    address: str
    secret: str | None = None
    attempts: int = 4
    timeout: float = 10.0

    def __repr__(self) -> str:
        return f"Target({self.kind} {self.address})"


@dataclass(frozen=True)
class Delivery:
    """What became of one notice; `problem` is empty when it arrived."""

    target: Target
    event_id: str
    attempts: int
    problem: str

    @property
    def delivered(self) -> bool:
        return not self.problem


def first_steps_event(root: str, progress: InProgress, step_hours: int) -> dict[str, Any]:
    """The first `steps_done` lead times of a forecast in the making can be read."""
    return _event(
        FIRST_STEPS,
        root,
        progress.prefix,
        progress.updated,
        {
            "cycle": progress.cycle.id,
            "variant": progress.variant,
            "revision": progress.revision,
            "url": f"{root}/{progress.prefix}",
            "readable_lead_hours": [step_hours * (i + 1) for i in range(progress.steps_done)],
            "expected_end": progress.expected_end and _utc(progress.expected_end),
        },
    )


def published_event(root: str, manifest: Manifest) -> dict[str, Any]:
    """A forecast is whole and published."""
    return _event(
        PUBLISHED,
        root,
        manifest.prefix,
        manifest.timeliness.published or datetime.now(UTC),
        {
            "cycle": manifest.cycle.id,
            "variant": manifest.variant,
            "revision": manifest.revision,
            "url": f"{root}/{manifest.prefix}",
            "manifest": f"{root}/{manifest.prefix}/manifest.json",
            "digest": manifest.digest,
            "products": sorted({asset.product for asset in manifest.assets}),
            "missing": sorted(m.product for m in manifest.missing),
            "degraded": manifest.quality.degraded,
        },
    )


def notify(
    event: Mapping[str, Any],
    targets: Iterable[Target],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Delivery, ...]:
    """Send an event to every target; never raises for a target that fails.

    A repeated event has the same `id` and `source`, so receivers can drop it.
    """
    body = json.dumps(event, sort_keys=True, allow_nan=False).encode()
    return tuple(_deliver(target, str(event["id"]), body, sleep) for target in targets)


def sign(secret: str, body: bytes) -> str:
    """The value of the signature header."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _event(
    kind: str, root: str, subject: str, when: datetime, data: dict[str, Any]
) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"{subject}:{kind.split('.')[-2]}",
        "source": root,
        "type": kind,
        "subject": subject,
        "time": _utc(when),
        "datacontenttype": "application/json",
        "data": data,
    }


def _utc(when: datetime) -> str:
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _deliver(
    target: Target, event_id: str, body: bytes, sleep: Callable[[float], None]
) -> Delivery:
    send = _post if target.kind == "webhook" else _publish_sns
    problem = ""
    for attempt in range(1, target.attempts + 1):
        problem, again = send(target, body)
        if not problem or not again:
            return Delivery(target, event_id, attempt, problem)
        if attempt < target.attempts:
            sleep(min(30.0, 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0))
    return Delivery(target, event_id, target.attempts, problem)


def _post(target: Target, body: bytes) -> tuple[str, bool]:
    """(problem, whether another attempt makes sense)"""
    headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    if target.secret:
        headers[SIGNATURE_HEADER] = sign(target.secret, body)
    try:
        reply = httpx.post(target.address, content=body, headers=headers, timeout=target.timeout)
    except httpx.InvalidURL as error:
        return f"not a URL: {error}", False
    except httpx.HTTPError as error:
        retry = not isinstance(error, httpx.UnsupportedProtocol)
        return f"{type(error).__name__}: {error}", retry
    if reply.is_success:
        return "", False
    return f"answered {reply.status_code}", reply.status_code >= 500 or reply.status_code in (
        408,
        425,
        429,
    )


def _publish_sns(target: Target, body: bytes) -> tuple[str, bool]:
    import boto3  # type: ignore[import-untyped,unused-ignore]
    from botocore.config import Config  # type: ignore[import-untyped,unused-ignore]
    from botocore.exceptions import (  # type: ignore[import-untyped,unused-ignore]
        BotoCoreError,
        ClientError,
    )

    parts = target.address.split(":")
    if len(parts) != 6 or parts[2] != "sns":
        return f"{target.address!r} is not the ARN of a topic", False
    config = Config(
        connect_timeout=target.timeout, read_timeout=target.timeout, retries={"max_attempts": 0}
    )
    try:
        boto3.client("sns", region_name=parts[3], config=config).publish(
            TopicArn=target.address, Message=body.decode()
        )
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return str(error), status >= 500 or status == 429
    except BotoCoreError as error:
        return str(error), True
    return "", False
