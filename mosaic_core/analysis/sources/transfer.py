"""HTTP with a hard deadline: retries, exponential backoff with jitter, whole bodies or nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import httpx

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


class NotThere(Exception):
    """404 or 403 from this mirror: not published there (yet)."""


class TransferFailed(Exception):
    """Busy, cut off, slow or wrong: may work later, or elsewhere."""


class OutOfTime(Exception):
    """The deadline has passed."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds: `deadline` bounds everything; `backoff` doubles from first to longest."""

    deadline: float
    connect: float
    read: float
    first_backoff: float
    longest_backoff: float


@dataclass
class Transfer:
    """One deadline's worth of requests."""

    patience: Patience
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._end = self.clock() + self.patience.deadline
        timeout = httpx.Timeout(self.patience.read, connect=self.patience.connect)
        self._client = httpx.Client(timeout=timeout, follow_redirects=True)
        self._failures = 0

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def get(self, url: str) -> bytes:
        """The whole body of `url`.

        Raises:
            NotThere, TransferFailed, OutOfTime
        """
        return self._request(url, {}, 200, None)

    def get_range(self, url: str, offset: int, length: int) -> bytes:
        """Bytes `offset` to `offset + length` of `url`, exactly; one range a request."""
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        return self._request(url, headers, 206, (offset, length))

    def back_off(self) -> None:
        """Wait before the next attempt: twice as long each time, by half at random."""
        longest = self.patience.longest_backoff
        wait = min(longest, self.patience.first_backoff * 2.0 ** min(self._failures, 30))
        self._failures += 1
        wait *= 0.5 + self.random.random() / 2
        if wait >= self.left:
            raise OutOfTime
        self.sleep(wait)

    @property
    def left(self) -> float:
        """Seconds before the deadline."""
        return self._end - self.clock()

    def _request(
        self, url: str, headers: dict[str, str], status: int, span: tuple[int, int] | None
    ) -> bytes:
        if self.left <= 0:
            raise OutOfTime
        headers = {"Accept-Encoding": "identity", **headers}
        # No single read may wait longer than there is time left.
        timeout = httpx.Timeout(
            min(self.patience.read, self.left), connect=min(self.patience.connect, self.left)
        )
        try:
            with self._client.stream("GET", url, headers=headers, timeout=timeout) as response:
                _require_status(response, status, span)
                body = bytearray()
                for part in response.iter_bytes():
                    body += part
                    if self.left <= 0:
                        raise OutOfTime
                    if span is not None and len(body) > span[1]:
                        raise TransferFailed(f"{url} sent more than the {span[1]} bytes asked for")
        except httpx.HTTPError as error:
            if self.left <= 0:
                raise OutOfTime from error
            raise TransferFailed(f"{url}: {type(error).__name__} {error}".rstrip()) from error
        if span is not None and len(body) != span[1]:
            raise TransferFailed(f"{url} sent {len(body)} of {span[1]} bytes")
        self._failures = 0
        return bytes(body)


def _require_status(response: httpx.Response, status: int, span: tuple[int, int] | None) -> None:
    code, url = response.status_code, response.url
    if code in (403, 404):
        raise NotThere(f"{url} answers {code}")
    if code in _BUSY:
        raise TransferFailed(f"{url} answers {code} {response.reason_phrase}".rstrip())
    if code != status:
        raise TransferFailed(f"{url} answers {code} where {status} was expected")
    if span is not None:
        said = response.headers.get("content-range", "")
        if not said.startswith(f"bytes {span[0]}-{span[0] + span[1] - 1}/"):
            raise TransferFailed(f"{url} sent the range {said!r}, not the one asked for")
