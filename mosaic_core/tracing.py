"""OpenTelemetry spans, as an option: nothing is traced unless the environment asks for it.

`OTEL_TRACES_EXPORTER` (`otlp`, `console`) or `OTEL_EXPORTER_OTLP_ENDPOINT` turn it on;
`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SDK_DISABLED` and the rest are the SDK's
own. It needs `pip install 'mosaic-forecast[otel]'`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

_FLUSH_MILLISECONDS: Final = 5000
_log = logging.getLogger(__name__)


@contextmanager
def span(name: str, **attributes: str | int | float) -> Iterator[None]:
    """A span around the block, inside the one that is open; an error of the block marks it.

    The outermost one hands all of them over before it returns, so that a process that is killed
    later loses none; a collector that does not answer costs a few seconds and no more.
    """
    if not wanted() or _provider() is None:
        yield
        return
    from opentelemetry import trace

    provider = _provider()
    outermost = not trace.get_current_span().get_span_context().is_valid
    tracer = provider.get_tracer("mosaic-forecast")
    named = {f"mosaic.{key}": value for key, value in attributes.items()}
    try:
        with tracer.start_as_current_span(name, attributes=named):
            yield
    finally:
        if outermost:
            provider.force_flush(_FLUSH_MILLISECONDS)


def wanted() -> bool:
    """Whether the environment asks for spans."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return exporter != "none" and bool(exporter or any(os.environ.get(e) for e in endpoints))


@cache
def _provider() -> Any:
    """The provider of the process, made when nobody has set one; None without the packages."""
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        current = trace.get_tracer_provider()
        if isinstance(current, TracerProvider):
            return current
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(_exporter()))
    except ImportError as error:
        _log.warning(
            "no spans are traced: %s; pip install 'mosaic-forecast[otel]', or unset OTEL_*", error
        )
        return None
    trace.set_tracer_provider(provider)
    return provider


def _exporter() -> Any:
    if os.environ.get("OTEL_TRACES_EXPORTER") == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
