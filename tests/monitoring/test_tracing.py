"""Spans when the environment asks for them, and nothing at all when it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mosaic_core import tracing
from tests.pipeline.command import mosaic
from tests.pipeline.world import FIRST
from tests.pipeline.world import World as RunnableWorld

OTEL = (
    "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_SDK_DISABLED",
)  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OTEL:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What an exporter in memory has got."""
    pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_provider", lambda: provider)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    yield exporter
    provider.shutdown()


def test_spans_are_nested_and_carry_what_they_are_about(spans: Any) -> None:
    with tracing.span("cycle", variant="hres"), tracing.span("forecast", revision=2):
        pass
    inner, outer = spans.get_finished_spans()
    assert (inner.name, outer.name) == ("forecast", "cycle")
    assert inner.parent.span_id == outer.context.span_id
    assert outer.parent is None
    assert dict(inner.attributes) == {"mosaic.revision": 2}


def test_error_marks_its_span_and_goes_on(spans: Any) -> None:
    with pytest.raises(ValueError, match="broken"), tracing.span("forecast"):
        raise ValueError("broken")
    (span,) = spans.get_finished_spans()
    assert not span.status.is_ok
    assert [event.name for event in span.events] == ["exception"]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_environment_turns_it_on(
    settings: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert tracing.wanted() is wanted


def test_without_the_package_it_says_so_once_and_traces_nothing() -> None:
    code = (
        "import logging, sys; logging.basicConfig()\n"
        "sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from mosaic_core import tracing\n"
        "for _ in range(2):\n"
        "    with tracing.span('forecast'): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"OTEL_TRACES_EXPORTER": "otlp"}, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr.count("mosaic-forecast[otel]") == 1


def test_nothing_is_imported_when_nobody_asks() -> None:
    code = (
        "import sys; from mosaic_core import tracing\n"
        "with tracing.span('forecast'): pass\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={}, text=True, capture_output=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_every_stage_of_a_cycle_is_a_span(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
    world = RunnableWorld(tmp_path / "world")
    given = {"OTEL_TRACES_EXPORTER": "console"}
    outcome = mosaic("run", str(FIRST), "-p", world.profile, "--json", environment=given)
    assert outcome.code == 0, outcome.err
    decoder, text, found = json.JSONDecoder(), outcome.out, {}
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        text = text[end:]
        if "attributes" in document:
            found[document["name"]] = document
    assert {"cycle", "ingest", "forecast", "products", "publish"} <= found.keys()
    cycle = found["cycle"]
    assert cycle["attributes"] == {"mosaic.variant": "tiny", "mosaic.cycle": FIRST.id}
    assert found["publish"]["parent_id"] == cycle["context"]["span_id"]
