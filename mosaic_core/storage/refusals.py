"""What a store's refusal means, in plain words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Final

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from mosaic_core.errors import StoreError, StoreUnreachable


class ObjectMissing(StoreError):
    """No object has this key."""


class ObjectExists(StoreError):
    """`create` found an object that has this key already."""


# Signs in a message (errno names are found by number), what it means, what to do.
_SIGNS: Final = (
    (("NoSuchBucket",), "the bucket does not exist", "create the bucket or correct the URL"),
    (
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "Unauthenticated", "InvalidToken"),
        "the store does not accept the credentials",
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    (
        (f"os error {errno.ENOSPC})", f"os error {errno.EDQUOT})", "QuotaExceeded", "507 "),
        "no space is left",
        "free space or raise the quota, then run again",
    ),
    (
        (f"os error {errno.EROFS})",),
        "the file system is mounted read only",
        "mount it writable or choose another folder",
    ),
    (
        ("AccessDenied", "PermissionDenied", "Forbidden", f"os error {errno.EACCES})"),
        "permission is denied",
        "check which user this is, and grant it read and write access below the root",
    ),
    (
        ("error sending request", "HTTP error", "Connection refused", "dns error", "timed out"),
        "the endpoint cannot be reached",
        "check AWS_ENDPOINT_URL, the network and whether the server is up",
    ),
    (
        tuple(f"non-2xx status code: {number} " for number in (429, 500, 502, 503, 504)),
        "the server is overloaded or out of order",
        "look at the server; what was written is kept",
    ),
)


# Meanings that time may cure.
_AWAY: Final = ("the endpoint cannot be reached", "the server is overloaded or out of order")


@contextlib.contextmanager
def translated(url: str, action: str) -> Iterator[None]:
    """Turns what a store raises into a StoreError about `url`."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise store_error(error, url, action) from error


def store_error(error: Exception, url: str, action: str) -> StoreError:
    """The StoreError that says in plain words what an error of the store means."""
    if isinstance(error, OSError) and error.errno is not None:
        text = f"{error.strerror} (os error {error.errno})"
    else:
        text = str(error).split("\n\nDebug source", 1)[0]
    if "NoSuchBucket" not in text:
        # A folder where an object is asked for, or a file in the middle of its key: no object.
        other_kind = action in ("read", "delete") and any(
            f"os error {number})" in text for number in (errno.EISDIR, errno.ENOTDIR)
        )
        if other_kind or isinstance(error, (NotFoundError, FileNotFoundError)):
            return ObjectMissing(f"there is no object {url}", "one", "check the key")
        if isinstance(error, (AlreadyExistsError, PreconditionError, FileExistsError)):
            return ObjectExists(f"{url} exists already", "no object of that key")
    if isinstance(error, PermissionDeniedError):
        text += " PermissionDenied"
    if isinstance(error, UnauthenticatedError):
        text += " Unauthenticated"
    for signs, meaning, advice in _SIGNS:
        if any(sign in text for sign in signs):
            kind = StoreUnreachable if meaning in _AWAY else StoreError
            return kind(f"cannot {action} {url}: {meaning}", "a store that works", advice)
    return StoreError(f"cannot {action} {url}: {text}", "a store that works")
