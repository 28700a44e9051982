"""Sites of small worlds, and steps of their cycles in processes that can be killed."""

from __future__ import annotations

import importlib
import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mosaic_core.cycle import Cycle
from mosaic_core.errors import MosaicError
from mosaic_core.pipeline.site import Site, open_site
from mosaic_core.profile import Profile
from mosaic_core.publication import client
from tests.pipeline.command import _CONTEXT, Fault
from tests.pipeline.world import FIRST, World

SPLIT: dict[str, Any] = {"members": 5, "members_per_run": 2}
PARTS = 3


def split_world(folder: Path, **settings: Any) -> World:
    return World(folder, settings=settings)


def site_of(world: World, *overrides: str) -> Site:
    return open_site(Profile.load(world.profile, overrides))


def digests(store: str, cycle: Cycle = FIRST) -> dict[str, str]:
    """sha256 of every asset of a published forecast; of Zarrs that of their list of checksums."""
    return {asset.key: asset.sha256 for asset in client.manifest(store, cycle).assets}


class Worker:
    """`steps.<name>(site, cycle, ...)` in a process of its own."""

    def __init__(
        self,
        world: World,
        name: str,
        *arguments: Any,
        cycle: Cycle = FIRST,
        faults: Sequence[Fault] = (),
        overrides: Sequence[str] = (),
    ) -> None:
        self.answers, theirs = _CONTEXT.Pipe(duplex=False)
        what = (world.profile, tuple(overrides), name, cycle.id, arguments, tuple(faults))
        self.process = _CONTEXT.Process(target=_work, args=(*what, theirs))
        self.process.start()
        theirs.close()

    def end(self, seconds: float = 120) -> Any:
        """What the step returned; its error is raised. None when the process was killed."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError("the step did not end")
        try:
            kind, value = self.answers.recv()
        except EOFError:
            assert self.process.exitcode < 0, self.process.exitcode
            return None
        if kind == "error":
            raise value
        assert kind == "done", value
        return value


def wait_until(condition: Callable[[], bool], worker: Worker, seconds: float = 120) -> None:
    """Poll for something that a worker brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert worker.process.is_alive() or condition(), "the worker has ended"
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def _work(
    profile: str,
    overrides: tuple[str, ...],
    name: str,
    cycle: str,
    arguments: tuple[Any, ...],
    faults: tuple[Fault, ...],
    answers: Any,
) -> None:
    import torch

    torch.set_num_threads(1)
    for fault in faults:
        fault.install()
    try:
        step = getattr(importlib.import_module("mosaic_core.pipeline.steps"), name)
        site = open_site(Profile.load(profile, overrides))
        answers.send(("done", step(site, Cycle.parse(cycle), *arguments)))
    except MosaicError as error:
        answers.send(("error", error))
    except BaseException:
        answers.send(("unforeseen", traceback.format_exc()))
    answers.close()
    os._exit(0)
