"""The `mosaic` command in processes of their own, which can be made to die or to be refused.

A server process imports everything once; each command is a fork of it, so that a real process that
can be killed costs little.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.servers import S3_ENVIRONMENT

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "mosaic_core.cli",
        "mosaic_core.pipeline.run",
        "mosaic_core.ensemble.run",
        "mosaic_core.ensemble.store",
        "mosaic_core.products.statistics",
        "mosaic_core.catalog.catalog",
        "mosaic_core.analysis.sources.zarr_archive",
        "mosaic_core.storage.zarr_store",
        "psycopg",
        "rich.console",
    ]
)
KILLED = -signal.SIGKILL
Action = Literal["kill", "kill-after", "no-space", "refuse", "pause"]


@dataclass(frozen=True)
class Fault:
    """What happens at a call of a function.

    Attributes:
        where: `module:attribute` or `module:Class.method`.
        action: die before or after the call, raise the OSError of a full disk or of a store that
            may not be written, or touch the file `signal` and wait.
        call: at which call, from 1; of those whose arguments contain `about`.
        ever_after: at every later call too.
    """

    where: str
    action: Action = "kill"
    call: int = 1
    about: str = ""
    ever_after: bool = False
    seconds: float = 0.0
    signal: str = ""

    def install(self) -> None:
        module_name, _, path = self.where.partition(":")
        owner: Any = importlib.import_module(module_name)
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        original = getattr(owner, name)
        setattr(owner, name, self._around(original))

    def _around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        calls = 0

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            if self.about and not any(
                self.about in str(a) for a in args if isinstance(a, str | Path)
            ):
                return original(*args, **kwargs)
            calls += 1
            due = calls == self.call or (self.ever_after and calls > self.call)
            if due and self.action != "kill-after":
                self._act()
            result = original(*args, **kwargs)
            if due and self.action == "kill-after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    def _act(self) -> None:
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "pause":
            Path(self.signal).touch()
            time.sleep(self.seconds)
            return
        number = errno.ENOSPC if self.action == "no-space" else errno.EACCES
        raise OSError(number, os.strerror(number))


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class Running:
    """A command under way."""

    def __init__(
        self,
        words: Sequence[str],
        faults: Sequence[Fault] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        outputs = [f"{self._folder.name}/{name}" for name in ("out", "err")]
        given = dict(environment or {})
        for name in S3_ENVIRONMENT:
            if name in os.environ:
                given.setdefault(name, os.environ[name])
        self.process = _CONTEXT.Process(
            target=_work, args=(list(words), tuple(faults), given, *outputs)
        )
        self.process.start()

    def end(self, seconds: float = 300) -> Outcome:
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError("the command did not end: " + self._text("err"))
        with self._folder:
            return Outcome(int(self.process.exitcode), self._text("out"), self._text("err"))

    def _text(self, name: str) -> str:
        path = Path(self._folder.name, name)
        return path.read_text() if path.exists() else ""


def mosaic(
    *words: str, faults: Sequence[Fault] = (), environment: Mapping[str, str] | None = None
) -> Outcome:
    """Run `mosaic WORDS`; no error of this project may end in a traceback."""
    outcome = Running(words, faults, environment).end()
    assert "Traceback" not in outcome.err, outcome.err
    return outcome


def _work(
    words: list[str], faults: tuple[Fault, ...], environment: dict[str, str], out: str, err: str
) -> None:
    for number, path in ((1, out), (2, err)):
        with open(path, "wb") as sink:
            os.dup2(sink.fileno(), number)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    os.environ.update(environment)
    if "TZ" in environment:
        time.tzset()
    import torch

    torch.set_num_threads(1)
    for fault in faults:
        fault.install()
    sys.argv = ["mosaic", *words]
    from mosaic_core.cli import main

    code: object = 0
    try:
        main()
    except SystemExit as error:
        code = error.code
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1 if code else 0)
