"""The objects below one root, whatever kind of store holds them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import obstore
from obstore.store import HTTPStore

from mosaic_core.errors import StoreError
from mosaic_core.storage.folders import flush, name_beside, prune, write_file
from mosaic_core.storage.opening import open_backend
from mosaic_core.storage.refusals import ObjectMissing, store_error, translated

CHUNK: Final = 8 * 1024 * 1024


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
        beside = name_beside(path)
        try:
            with beside.open("wb") as sink:
                for part in self.stream(key):
                    sink.write(part)
            beside.replace(path)
        except OSError as error:
            raise store_error(error, str(path), "write") from error
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
            prune(self.folder / prefix)
        return len(keys)

    def flush(self, prefix: str = "") -> None:
        """Bring everything below `prefix` (or the object of that key) to disk.

        Only a folder has something to do: other stores are durable when a write returns.
        """
        if self.folder is None:
            return
        try:
            flush(self.folder / _checked(prefix))
        except OSError as error:
            raise store_error(error, self.url(prefix), "write") from error

    def zarr(self, prefix: str, *, read_only: bool = False) -> Any:
        """A `zarr.storage.ObjectStore` of everything below `prefix`."""
        from mosaic_core.storage.zarr_store import TranslatingStore

        read_only = read_only or not self.writable
        below = open_store(self.url(prefix), create=not read_only)
        if read_only and below.folder is not None:
            from mosaic_core.storage.folder_pipeline import read_folders_fast

            read_folders_fast()
        return TranslatingStore(below._backend, read_only=read_only)

    def below(self, prefix: str) -> ObjectStore:
        """The store whose root is the folder `prefix` of this one."""
        return open_store(self.url(prefix), create=self.writable)

    def _write(self, key: str, data: bytes, *, replace: bool) -> None:
        self._refuse_read_only()
        with self._translated(key, "write"):
            if self.folder is not None:
                write_file(self.folder / _checked(key), data, replace=replace)
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

    def _translated(self, key: str, action: str) -> AbstractContextManager[None]:
        return translated(self.url(key), action)


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
    root, folder, backend = open_backend(url, create)
    writable = not isinstance(backend, HTTPStore)
    return ObjectStore(root, folder, writable, backend)


def _checked(key: str) -> str:
    parts = key.split("/")
    if key and any(part in ("", ".", "..") for part in parts):
        raise StoreError(f"{key!r} is not a key", "names separated by single slashes")
    return key
