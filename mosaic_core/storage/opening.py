"""Which store a URL means, and how its kind is reached."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import HTTPStore, LocalStore, S3Store

from mosaic_core.errors import ConfigurationError, StoreError
from mosaic_core.storage.refusals import store_error

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
Backend = HTTPStore | LocalStore | S3Store


def open_backend(url: str | Path, create: bool) -> tuple[str, Path | None, Backend]:
    """(root, its folder if it is one, the backend) of a store; as `open_store` takes and raises."""
    text = str(url).rstrip("/") or "/"
    parts = urlsplit(text)
    if parts.scheme in ("", "file"):
        return _open_folder(Path(unquote(parts.path) if parts.scheme else text), create)
    if parts.scheme == "s3" and parts.netloc:
        return text, None, _open_s3(parts.netloc, parts.path.strip("/"), text)
    if parts.scheme in ("http", "https") and parts.netloc:
        client: Any = {**_CLIENT, "allow_http": parts.scheme == "http"}
        return text, None, HTTPStore(text, client_options=client, retry_config=_RETRY)
    raise ConfigurationError(
        f"{text!r} is not a store", "a folder, file://..., s3://bucket/prefix or https://..."
    )


def _open_folder(path: Path, create: bool) -> tuple[str, Path, LocalStore]:
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
        raise store_error(error, str(path), "open") from error
    return str(path), path, backend


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
        raise store_error(error, url, "open") from error


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
