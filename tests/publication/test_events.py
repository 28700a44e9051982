"""Notices reach who listens, and a listener that is gone harms nothing."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from mosaic_core.publication.events import (
    FIRST_STEPS,
    PUBLISHED,
    SIGNATURE_HEADER,
    Target,
    first_steps_event,
    notify,
    published_event,
    sign,
)
from mosaic_core.publication.progress import InProgress
from mosaic_core.publication.publish import publish
from mosaic_core.storage import open_store
from tests.publication.helpers import CYCLE, NOW, stage
from tests.servers import free_port


class Listener(http.server.BaseHTTPRequestHandler):
    answers: list[int]
    got: list[tuple[dict[str, str], bytes]]

    def log_message(self, *_args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((dict(self.headers), body))
        self.send_response(self.answers.pop(0) if self.answers else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def listener():
    handler = type("Handler", (Listener,), {"answers": [], "got": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    handler.url = f"http://127.0.0.1:{server.server_port}/hook"
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def event(tmp_path):
    store = open_store(tmp_path)
    return published_event(store.root, publish(store, stage(store), now=NOW).manifest)


def test_published_forecast_is_announced_as_a_cloud_event(listener, event):
    (delivery,) = notify(event, [Target("webhook", listener.url, secret="shared")])
    assert delivery.delivered
    assert delivery.attempts == 1
    headers, body = listener.got[0]
    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert headers[SIGNATURE_HEADER] == sign("shared", body)
    received = json.loads(body)
    assert {"specversion", "id", "source", "type"} <= received.keys()
    assert received["specversion"] == "1.0"
    assert received["type"] == PUBLISHED
    assert received["time"] == "2026-11-20T07:00:00Z"
    assert received["data"]["products"] == ["maps", "statistics"]


def test_readable_lead_times_are_announced():
    event = first_steps_event("s3://b", InProgress(CYCLE, "hres", 1, 2, 40, NOW), 6)
    assert event["type"] == FIRST_STEPS
    assert event["data"]["readable_lead_hours"] == [6, 12]
    assert event["id"] != event["subject"]


def test_notice_is_repeated_while_the_listener_is_unwell(listener, event):
    listener.answers[:] = [503, 429]
    pauses = []
    (delivery,) = notify(event, [Target("webhook", listener.url)], sleep=pauses.append)
    assert (delivery.delivered, delivery.attempts) == (True, 3)
    assert len(pauses) == 2
    assert len({body for _, body in listener.got}) == 1


def test_refused_notice_is_not_repeated(listener, event):
    listener.answers[:] = [403]
    (delivery,) = notify(event, [Target("webhook", listener.url)])
    assert (delivery.attempts, delivery.problem) == (1, "answered 403")


def test_listener_that_is_gone_is_reported_and_others_still_hear(listener, event):
    gone = Target("webhook", f"http://127.0.0.1:{free_port()}/", attempts=2)
    first, second = notify(
        event, [gone, Target("webhook", listener.url)], sleep=lambda _seconds: None
    )
    assert not first.delivered
    assert "Connect" in first.problem
    assert second.delivered


@pytest.mark.parametrize(
    "target", [Target("webhook", "ftp://x/"), Target("webhook", "nonsense"), Target("sns", "x")]
)
def test_wrong_addresses_are_reported_at_once(event, target):
    (delivery,) = notify(event, [target])
    assert not delivery.delivered
    assert delivery.attempts == 1


def test_topic_gets_the_same_event(event, s3_server, monkeypatch):
    import boto3

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("sns", region_name="us-east-1")
    topic = client.create_topic(Name="forecasts")["TopicArn"]
    assert notify(event, [Target("sns", topic)])[0].delivered
    (delivery,) = notify(event, [Target("sns", topic + "-gone")])
    assert "NotFound" in delivery.problem
    client.close()


def test_secret_is_not_shown():
    assert "hidden" not in repr(Target("webhook", "http://x", secret="hidden"))
