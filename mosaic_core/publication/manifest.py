"""The manifest: what a published forecast is, of what it was made, and how to check it.

Two digests stand in it. `digest` defines "the same forecast" (identity, inputs, asset digests;
not times, hosts or code version): a re-run with the same digest publishes nothing. `seal` is the
sha256 of the rest of the manifest, so that a changed manifest is found like a changed asset.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Final

from mosaic_core.cycle import Cycle
from mosaic_core.errors import IntegrityError, PublicationError
from mosaic_core.publication import layout

SCHEMA_VERSION: Final = "1.0"
ZARR_MEDIA_TYPE: Final = "application/vnd.zarr; version=3"


@dataclass(frozen=True)
class Model:
    """The model that made the forecast."""

    name: str
    checkpoint_sha256: str
    code_version: str
    notes: str = ""


@dataclass(frozen=True)
class Ensemble:
    members: int
    steps: int
    step_hours: int
    seed: int


@dataclass(frozen=True)
class Input:
    """One analysis that went in, with the result of each check by name."""

    source: str
    valid_time: datetime
    digest: str
    checks: Mapping[str, str] = field(default_factory=dict)
    url: str = ""


@dataclass(frozen=True)
class AssetDraft:
    """One finished product in the forecast's folder.

    Attributes:
        key: relative to the folder of the forecast: a file, or the root of a Zarr.
        product: the product it belongs to, such as `statistics`.
        media_type: IANA media type; that of Zarr makes `key` a tree of objects.
        sha256: digest that the maker knows; publication compares it with what is stored.
        chunks: chunk shape of each variable, in the order of its dimensions.
        attributes: anything else a consumer should know (`keepbits`, say).
    """

    key: str
    product: str
    media_type: str
    title: str = ""
    variables: tuple[str, ...] = ()
    lead_hours: tuple[int, ...] = ()
    chunks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None

    @property
    def is_zarr(self) -> bool:
        return self.media_type.startswith("application/vnd.zarr")


@dataclass(frozen=True)
class Asset:
    """A published product: an `AssetDraft` with what was measured in the store.

    Attributes:
        objects: how many objects it has; 1 for a file.
        bytes: size of all of them.
        sha256: of the file; for a Zarr of the list `<key>.sha256`, which `sha256sum -c` reads.
    """

    key: str
    product: str
    media_type: str
    title: str
    variables: tuple[str, ...]
    lead_hours: tuple[int, ...]
    chunks: Mapping[str, tuple[int, ...]]
    attributes: Mapping[str, Any]
    objects: int
    bytes: int
    sha256: str

    @property
    def is_zarr(self) -> bool:
        return self.media_type.startswith("application/vnd.zarr")

    @property
    def checksums_key(self) -> str:
        return self.key + layout.CHECKSUMS


@dataclass(frozen=True)
class Missing:
    """A product that was wanted and is not there."""

    product: str
    reason: str


@dataclass(frozen=True)
class Timeliness:
    """When what happened, UTC; None where it does not apply."""

    nominal: datetime
    analysis_available: datetime | None = None
    started: datetime | None = None
    first_step: datetime | None = None
    published: datetime | None = None


@dataclass(frozen=True)
class Quality:
    """What is less than it should be.

    Attributes:
        degraded: made from degraded input, or without some of its products (`missing`).
        flags: each departure from an undisturbed forecast, in words.
    """

    degraded: bool = False
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ManifestDraft:
    """All that the maker of a forecast says; publication adds what it measures."""

    cycle: Cycle
    variant: str
    model: Model
    ensemble: Ensemble
    inputs: tuple[Input, ...]
    assets: tuple[AssetDraft, ...]
    timeliness: Timeliness
    missing: tuple[Missing, ...] = ()
    quality: Quality = Quality()
    licence: str = "CC-BY-4.0"
    attribution: str = ""


@dataclass(frozen=True)
class Manifest:
    """The commit marker of a forecast, `manifest.json`: written last, never changed."""

    cycle: Cycle
    variant: str
    revision: int
    model: Model
    ensemble: Ensemble
    inputs: tuple[Input, ...]
    assets: tuple[Asset, ...]
    timeliness: Timeliness
    missing: tuple[Missing, ...]
    quality: Quality
    licence: str
    attribution: str

    @property
    def prefix(self) -> str:
        return layout.forecast_prefix(self.variant, self.cycle, self.revision)

    @property
    def id(self) -> layout.ForecastId:
        return layout.ForecastId(self.variant, self.cycle, self.revision)

    def asset(self, product: str) -> Asset:
        """The asset of a product, or the one of that key.

        Raises:
            PublicationError: there is none, or it takes a key to tell several apart.
        """
        found = [a for a in self.assets if product in (a.product, a.key)]
        if len(found) == 1:
            return found[0]
        reasons = [m.reason for m in self.missing if m.product == product]
        names = sorted({a.key for a in found} or {a.product for a in self.assets})
        problem = "has several files" if found else f"is missing ({'; '.join(reasons) or 'none'})"
        raise PublicationError(
            f"product {product!r} of {self.variant} {self.cycle} {problem}",
            f"one of {', '.join(names) or 'no product at all'}",
        )

    @property
    def digest(self) -> str:
        """sha256 over what makes it this forecast and no other; see the module's docstring."""
        content = {
            "cycle": self.cycle.id,
            "variant": self.variant,
            "checkpoint": self.model.checkpoint_sha256,
            "ensemble": _plain(self.ensemble),
            "inputs": [[i.source, _time(i.valid_time), i.digest] for i in self.inputs],
            "assets": sorted([a.key, a.bytes, a.sha256] for a in self.assets),
            "missing": sorted(m.product for m in self.missing),
            "quality": _plain(self.quality),
        }
        return _sha256(content)

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`, checked against the schema.

        Raises:
            PublicationError: a field is not what the schema wants; names it.
        """
        document = {"schema_version": SCHEMA_VERSION, **_plain(self), "digest": self.digest}
        document["seal"] = _sha256(document)
        problem = _schema_problem(document)
        if problem:
            raise PublicationError(
                f"the manifest of {self.variant} {self.cycle} is invalid: {problem}",
                "a manifest that its schema accepts",
            )
        return dump(document)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """Read and check a manifest; `where` names it in messages.

        Raises:
            IntegrityError: not JSON, not valid, or its seal is broken.
            PublicationError: written in a major version that this program does not know.
        """
        document = read_document(data, where)
        refuse_unknown_version(document, where)
        problem = _schema_problem(document)
        if problem:
            raise IntegrityError(f"{where} is invalid: {problem}", "a whole manifest", _DAMAGED)
        body = {key: value for key, value in document.items() if key != "seal"}
        if document["seal"] != _sha256(body) or data != dump(document):
            raise IntegrityError(f"{where} was changed", f"seal {document['seal']}", _DAMAGED)
        manifest = _manifest(document)
        if manifest.digest != document["digest"]:
            raise IntegrityError(f"{where} was changed", f"digest {document['digest']}", _DAMAGED)
        return manifest


_DAMAGED: Final = "publish the cycle again; what reads it should keep the previous forecast"


def read_document(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `data`; IntegrityError when it holds none."""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise IntegrityError(f"{where} is not JSON: {error}", "JSON", _DAMAGED) from error
    if not isinstance(document, dict):
        raise IntegrityError(f"{where} holds {type(document).__name__}", "an object", _DAMAGED)
    return document


def refuse_unknown_version(document: Mapping[str, Any], where: str) -> None:
    """PublicationError unless the major version is the one that this program writes."""
    version = str(document.get("schema_version", "none"))
    if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise PublicationError(
            f"{where} has schema version {version}",
            f"{SCHEMA_VERSION.split('.')[0]}.x",
            "install a release of mosaic-forecast that reads it",
        )


def schema() -> dict[str, Any]:
    """The JSON Schema of `manifest.json`."""
    text = resources.files(__package__).joinpath("manifest.schema.json").read_text("utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


@cache
def _validator() -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(
        schema(), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )


def _schema_problem(document: object) -> str | None:
    import jsonschema

    error = jsonschema.exceptions.best_match(_validator().iter_errors(document))
    return None if error is None else f"{error.json_path}: {error.message}"


def _plain(value: Any) -> Any:
    """Dataclasses, times and tuples as JSON has them."""
    if isinstance(value, Cycle):
        return value.id
    if isinstance(value, datetime):
        return _time(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _time(time: datetime) -> str:
    if time.tzinfo is None:
        raise PublicationError(f"time {time.isoformat()} has no zone", "a time in UTC")
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def dump(document: object) -> bytes:
    """The canonical bytes of a document: sorted keys, times in UTC, a newline at the end."""
    try:
        text = json.dumps(
            _plain(document), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise PublicationError(f"the document is not JSON: {error}", "plain values") from error
    return text.encode() + b"\n"


def _sha256(document: object) -> str:
    return hashlib.sha256(dump(document)).hexdigest()


def read_time(text: str) -> datetime:
    """A time as `dump` wrote it."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _manifest(document: Mapping[str, Any]) -> Manifest:
    return Manifest(
        cycle=Cycle.parse(document["cycle"]),
        variant=document["variant"],
        revision=document["revision"],
        model=Model(**document["model"]),
        ensemble=Ensemble(**document["ensemble"]),
        inputs=tuple(
            Input(**{**item, "valid_time": read_time(item["valid_time"])})
            for item in document["inputs"]
        ),
        assets=tuple(_asset(item) for item in document["assets"]),
        timeliness=Timeliness(**{k: v and read_time(v) for k, v in document["timeliness"].items()}),
        missing=tuple(Missing(**item) for item in document["missing"]),
        quality=Quality(document["quality"]["degraded"], tuple(document["quality"]["flags"])),
        licence=document["licence"],
        attribution=document["attribution"],
    )


def _asset(item: Mapping[str, Any]) -> Asset:
    return Asset(
        **{
            **item,
            "variables": tuple(item["variables"]),
            "lead_hours": tuple(item["lead_hours"]),
            "chunks": {name: tuple(shape) for name, shape in item["chunks"].items()},
        }
    )
