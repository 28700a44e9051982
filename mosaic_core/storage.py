"""Object stores: one interface to a local folder, an S3 bucket and a read-only web server.

Whole objects go through `get`, `put` and `create`; arrays through `zarr`. Two promises carry
publication, and hold on every kind of store:

- an object is seen whole or not at all (S3 by nature; a folder by writing beside and renaming,
  with the bytes and the name on disk before the call returns);
- of several `create` calls for one key exactly one succeeds (`If-None-Match: *`; a hard link).

`put` and `create` are durable when they return. What is written through `zarr` into a folder is
durable after `flush`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import HTTPStore, LocalStore, S3Store

from mosaic_core.errors import ConfigurationError, StoreError, StoreUnreachable

CHUNK: Final = 8 * 1024 * 1024
_RETRY: Final[Any] = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}
_CLIENT: Final[dict[str, Any]] = {"connect_timeout": "5s", "timeout": "120s"}


class ObjectMissing(StoreError):
    """No object has this key."""


class ObjectExists(StoreError):
    """`create` found an object that has this key already."""


@dataclass(frozen=True, order=True)
class ObjectInfo:
    """One entry of a listing: key below the root, size in bytes, time of the last change (UTC)."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class ObjectStore:
    """Objects below one root.

    Attributes:
        root: the root as a reader would name it: an absolute path, `s3://bucket/prefix` or
            `https://...`, without a slash at the end.
        folder: the folder, when the store is one.
        writable: false for web servers.

    Every method raises StoreError when the store refuses, is full or cannot be reached.
    """

    root: str
    folder: Path | None
    writable: bool
    _backend: Any

    def url(self, key: str = "") -> str:
        """Path or URL of an object or prefix."""
        return f"{self.root}/{_checked(key)}" if key else self.root

    def get(self, key: str) -> bytes:
        """The whole object.

        Raises:
            ObjectMissing: there is none.
        """
        with self._translated(key, "read"):
            return bytes(obstore.get(self._backend, _checked(key)).bytes())

    def exists(self, key: str) -> bool:
        try:
            with self._translated(key, "read"):
                obstore.head(self._backend, _checked(key))
        except ObjectMissing:
            return False
        return True

    def size(self, key: str) -> int:
        """Size in bytes; raises ObjectMissing when there is no such object."""
        with self._translated(key, "read"):
            return int(obstore.head(self._backend, _checked(key))["size"])

    def put(self, key: str, data: bytes) -> None:
        """Write or replace an object."""
        self._write(key, data, replace=True)

    def create(self, key: str, data: bytes) -> None:
        """Write an object that must not exist yet.

        On S3 a reply that was lost makes the repeated request find its own object, so a caller
        to whom the difference matters compares the content.

        Raises:
            ObjectExists: it does; nothing is changed.
        """
        self._write(key, data, replace=False)

    def upload(self, path: Path, key: str) -> None:
        """Write or replace an object with the content of a file, in parts when it is large."""
        self._refuse_read_only()
        with self._translated(key, "write"), path.open("rb") as source:
            obstore.put(self._backend, _checked(key), source)
        self.flush(key)

    def download(self, key: str, path: Path) -> None:
        """Copy an object into a file, which appears only when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(path)
        try:
            with beside.open("wb") as sink:
                for part in self.stream(key):
                    sink.write(part)
            beside.replace(path)
        except OSError as error:
            raise _store_error(error, str(path), "write") from error
        finally:
            beside.unlink(missing_ok=True)

    def copy(self, source: str, target: str) -> None:
        """Put the object `source` under the key `target` too; the store moves the bytes itself."""
        self._refuse_read_only()
        with self._translated(source, "copy"):
            obstore.copy(self._backend, _checked(source), _checked(target))
        self.flush(target)

    def stream(self, key: str) -> Iterator[bytes]:
        """The object in parts of about 8 MiB."""
        with self._translated(key, "read"):
            for part in obstore.get(self._backend, _checked(key)).stream(min_chunk_size=CHUNK):
                yield bytes(part)

    def sha256(self, key: str) -> tuple[int, str]:
        """(size in bytes, sha256 in hexadecimal digits) of an object as it is read back."""
        digest, size = hashlib.sha256(), 0
        for part in self.stream(key):
            digest.update(part)
            size += len(part)
        return size, digest.hexdigest()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below the folder `prefix`, at any depth, in no particular order."""
        with self._translated(prefix, "list"):
            for batch in obstore.list(self._backend, prefix=_checked(prefix) or None):
                for meta in batch:
                    modified = meta["last_modified"].astimezone(UTC)
                    yield ObjectInfo(meta["path"], int(meta["size"]), modified)

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """Names (without slashes) of the folders directly below `prefix`, sorted."""
        with self._translated(prefix, "list"):
            found = obstore.list_with_delimiter(self._backend, prefix=_checked(prefix) or None)
        names = (name.rstrip("/").rsplit("/", 1)[-1] for name in found["common_prefixes"])
        return tuple(sorted(names))

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        self._refuse_read_only()
        with contextlib.suppress(ObjectMissing), self._translated(key, "delete"):
            obstore.delete(self._backend, _checked(key))

    def delete_all(self, prefix: str) -> int:
        """Remove every object below the folder `prefix`; returns how many there were."""
        self._refuse_read_only()
        if not prefix:
            raise StoreError(f"refusing to empty {self.root}", "a prefix to delete")
        keys = [info.key for info in self.list(prefix)]
        with self._translated(prefix, "delete"):
            for start in range(0, len(keys), 1000):
                obstore.delete(self._backend, keys[start : start + 1000])
        if self.folder is not None:
            _prune(self.folder / prefix)
        return len(keys)

    def flush(self, prefix: str = "") -> None:
        """Bring everything below `prefix` (or the object of that key) to disk.

        Only a folder has something to do: other stores are durable when a write returns.
        """
        if self.folder is None:
            return
        base = self.folder / _checked(prefix)
        try:
            if base.is_dir():
                for folder, _, names in os.walk(base):
                    for name in names:
                        # Another process's unfinished file or abandoned draft may just have gone.
                        with contextlib.suppress(FileNotFoundError):
                            _fsync(Path(folder, name))
                    with contextlib.suppress(FileNotFoundError):
                        _fsync(Path(folder))
            else:
                _fsync(base)
                _fsync(base.parent)
        except OSError as error:
            raise _store_error(error, self.url(prefix), "write") from error

    def zarr(self, prefix: str, *, read_only: bool = False) -> Any:
        """A `zarr.storage.ObjectStore` of everything below `prefix`."""
        from mosaic_core._zarr_store import TranslatingStore

        read_only = read_only or not self.writable
        below = open_store(self.url(prefix), create=not read_only)
        return TranslatingStore(below._backend, read_only=read_only)

    def below(self, prefix: str) -> ObjectStore:
        """The store whose root is the folder `prefix` of this one."""
        return open_store(self.url(prefix), create=self.writable)

    def _write(self, key: str, data: bytes, *, replace: bool) -> None:
        self._refuse_read_only()
        with self._translated(key, "write"):
            if self.folder is not None:
                _write_file(self.folder / _checked(key), data, replace=replace)
            else:
                mode: Any = "overwrite" if replace else "create"
                # One request: servers differ in what they hold of conditional multipart uploads.
                obstore.put(self._backend, _checked(key), data, mode=mode, use_multipart=False)

    def _refuse_read_only(self) -> None:
        if not self.writable:
            raise StoreError(
                f"{self.root} is a web server and read only",
                "a folder or s3://bucket/prefix",
                "write to the store behind the server",
            )

    @contextlib.contextmanager
    def _translated(self, key: str, action: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise _store_error(error, self.url(key), action) from error


def open_store(url: str | Path, *, create: bool = True) -> ObjectStore:
    """Open a local folder (path or `file://`), `s3://bucket/prefix`, or `http(s)://` to read.

    For S3 the endpoint, region and credentials come from the environment (`AWS_ENDPOINT_URL`,
    `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`,
    `AWS_SKIP_SIGNATURE=true` for anonymous reading), or from wherever boto3 finds them.

    Args:
        create: make the folder when it is not there; readers say False.

    Raises:
        ConfigurationError: the URL is of none of these kinds.
        StoreError: no such folder, or no credentials.
    """
    text = str(url).rstrip("/") or "/"
    parts = urlsplit(text)
    if parts.scheme in ("", "file"):
        return _open_folder(Path(unquote(parts.path) if parts.scheme else text), create)
    if parts.scheme == "s3" and parts.netloc:
        return ObjectStore(text, None, True, _open_s3(parts.netloc, parts.path.strip("/"), text))
    if parts.scheme in ("http", "https") and parts.netloc:
        client: Any = {**_CLIENT, "allow_http": parts.scheme == "http"}
        backend = HTTPStore(text, client_options=client, retry_config=_RETRY)
        return ObjectStore(text, None, False, backend)
    raise ConfigurationError(
        f"{text!r} is not a store", "a folder, file://..., s3://bucket/prefix or https://..."
    )


def _open_folder(path: Path, create: bool) -> ObjectStore:
    path = path.expanduser().absolute()
    if not create and not path.is_dir():
        raise StoreError(f"there is no folder {path}", "the root of a store", "check the path")
    try:
        path.mkdir(parents=True, exist_ok=True)
        backend = LocalStore(path)
    except OSError as error:
        raise StoreError(
            f"cannot make the folder {path}: {error.strerror}",
            "the root of a store",
            "choose a folder that can be made and written",
        ) from error
    except BaseError as error:
        raise _store_error(error, str(path), "open") from error
    return ObjectStore(str(path), path, True, backend)


def _open_s3(bucket: str, prefix: str, url: str) -> S3Store:
    env = os.environ
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or None
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1"
    options: dict[str, Any] = {"region": region, "conditional_put": "etag"}
    if endpoint:
        options["endpoint"] = endpoint
    anonymous = env.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes")
    if not anonymous and not env.get("AWS_ACCESS_KEY_ID"):
        options["credential_provider"] = _boto3_credentials(url)
    client: Any = {**_CLIENT, "allow_http": bool(endpoint and endpoint.startswith("http://"))}
    try:
        return S3Store(
            bucket, prefix=prefix or None, client_options=client, retry_config=_RETRY, **options
        )
    except BaseError as error:
        raise _store_error(error, url, "open") from error


def _boto3_credentials(url: str) -> Any:
    import boto3  # type: ignore[import-untyped,unused-ignore]
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = boto3.Session()
    if session.get_credentials() is None:
        raise StoreError(
            f"no credentials for {url}",
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role",
            "set them, or AWS_SKIP_SIGNATURE=true to read a public bucket",
        )
    return Boto3CredentialProvider(session)


def _checked(key: str) -> str:
    parts = key.split("/")
    if key and any(part in ("", ".", "..") for part in parts):
        raise StoreError(f"{key!r} is not a key", "names separated by single slashes")
    return key


def _beside(path: Path) -> Path:
    """A name for a file still being written, of the form that listings leave out."""
    return path.with_name(f"{path.name}#{random.SystemRandom().randrange(10**12)}")


def _write_file(path: Path, data: bytes, *, replace: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(path)
    try:
        with beside.open("xb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        if replace:
            beside.replace(path)
        else:
            os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    _fsync(path.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(folder: Path) -> None:
    """Remove the empty folders that are left of a deleted tree."""
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


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


def _store_error(error: Exception, url: str, action: str) -> StoreError:
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
