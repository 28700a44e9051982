"""Artifacts on a run's page, best effort: a server that is away never fails or holds up a stage."""

from __future__ import annotations

import contextvars
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows import report
from mosaic_core.pipeline.site import Site
from mosaic_core.publication.manifest import Manifest

PROGRESS_SECONDS = 2.0
_log = logging.getLogger(__name__)


def show_published(site: Site, manifest: Manifest, timings: dict[str, float], outcome: str) -> None:
    """Summary, products and quick looks of a published cycle."""
    name = manifest.variant
    text = _try(report.summary, site, manifest, timings, outcome)
    if text:
        title = report.title(manifest)
        _try(create_markdown_artifact, text, key=_key(name, "summary"), description=title)
    table = report.product_table(manifest)
    _try(create_table_artifact, table, key=_key(name, "products"), description="Products")
    for asset, url in _try(report.quick_looks, site, manifest) or ():
        key = _key(name, asset.key.rpartition("/")[2].removesuffix(".png"))
        _try(create_image_artifact, url, key=key, description=asset.title)


def show_text(variant: str, name: str, text: str, description: str = "") -> None:
    _try(create_markdown_artifact, text, key=_key(variant, name), description=description or None)


def show_table(variant: str, name: str, table: list[dict[str, Any]], description: str) -> None:
    if table:
        _try(create_table_artifact, table, key=_key(variant, name), description=description)


@contextmanager
def rollout_shown(variant: str, description: str) -> Iterator[Callable[[float, str], None]]:
    """A progress artifact that follows a rollout.

    Yields:
        a function of the fraction that is done and a text; it returns at once. The newest value
        is sent by a thread of its own, so that a slow server holds up nothing.
    """
    shown = _Progress(variant, description)
    context = contextvars.copy_context()  # where Prefect keeps which run this is
    thread = threading.Thread(target=context.run, args=(shown.follow,), daemon=True)
    thread.start()
    try:
        yield shown.set
    finally:
        shown.ended.set()
        thread.join(timeout=5)


class _Progress:
    def __init__(self, variant: str, description: str) -> None:
        self.key, self.description = _key(variant, "progress"), description
        self.newest: tuple[float, str] = (0.0, description)
        self.sent: tuple[float, str] | None = None
        self.artifact: UUID | None = None
        self.ended = threading.Event()

    def set(self, fraction: float, text: str) -> None:
        self.newest = (fraction, f"{self.description}: {text}")

    def follow(self) -> None:
        while not self.ended.wait(0 if self.sent is None else PROGRESS_SECONDS):
            self.send()
        self.send()

    def send(self) -> None:
        newest = self.newest
        if newest == self.sent:
            return
        self.sent = newest
        percent = round(100 * newest[0], 1)
        if self.artifact is None:
            self.artifact = _try(
                create_progress_artifact, percent, key=self.key, description=newest[1]
            )
        else:
            _try(update_progress_artifact, self.artifact, percent, description=newest[1])


def _key(variant: str, name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{variant}-{name}".lower()).strip("-")


def _try(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return make(*args, **kwargs)
    except Exception as error:  # an artifact is no part of a forecast
        _log.warning("not shown in the UI: %s: %s", type(error).__name__, error)
        return None
