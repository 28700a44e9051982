"""GRIB messages: where they begin and end, what they hold, and their values.

Messages are cut out of a file here, by their own lengths, so that offsets, checksums and truncation
are known; ecCodes decodes them one at a time. A GRIB2 message may repeat sections 2 to 7 to hold
several fields (NCEP packs u with v); `split` makes one message of each, which needs none of
ecCodes' process-wide multi-field state.
"""

from __future__ import annotations

import contextlib
import sqlite3  # noqa: F401  before ecCodes, whose own old SQLite would else serve the catalog
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

# ecCodes and PostgreSQL's client each bring an OpenLDAP. Loaded after that of ecCodes, the client's
# makes the process die when it ends, after its work is done, with a segmentation fault.
with contextlib.suppress(ImportError):
    import psycopg  # noqa: F401
import eccodes

from mosaic_core.analysis.fields import FieldKey, Oriented, orient
from mosaic_core.errors import AnalysisUnreadable

_END: Final = b"7777"
_GRIB1_LARGE: Final = 0x800000

# ecCodes short name -> (name, units as ecCodes writes them, on pressure levels)
QUANTITIES: Final[dict[str, tuple[str, str, bool]]] = {
    "2t": ("2m_temperature", "K", False),
    "10u": ("10m_u_component_of_wind", "m s**-1", False),
    "10v": ("10m_v_component_of_wind", "m s**-1", False),
    "msl": ("mean_sea_level_pressure", "Pa", False),
    "prmsl": ("mean_sea_level_pressure", "Pa", False),
    "z": ("geopotential", "m**2 s**-2", True),
    "gh": ("geopotential_height", "gpm", True),
    "q": ("specific_humidity", "kg kg**-1", True),
    "r": ("relative_humidity", "%", True),
    "t": ("temperature", "K", True),
    "u": ("u_component_of_wind", "m s**-1", True),
    "v": ("v_component_of_wind", "m s**-1", True),
    "w": ("vertical_velocity", "Pa s**-1", True),
}


@dataclass(frozen=True)
class RawMessage:
    """One message of a file: byte offset and bytes, `GRIB` to `7777`."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Header:
    """What a field is: its key, validity (UTC), step, and who it belongs to.

    `kind` tells apart what must not be mixed: perturbed members, statistics over a period.
    """

    key: FieldKey
    valid_time: datetime
    step: timedelta
    kind: str


def messages(data: bytes | memoryview, where: str) -> Iterator[RawMessage]:
    """Cut a file into its messages. Bytes between messages are allowed only if they are zero.

    Raises:
        AnalysisUnreadable: something that is not GRIB, or a truncated message; byte offsets named.
    """
    view = memoryview(data)
    position = 0
    while position < len(view):
        if bytes(view[position : position + 4]) != b"GRIB":
            gap = bytes(view[position : position + 4096])
            zeros = len(gap) - len(gap.lstrip(b"\0"))
            if zeros == 0:
                raise AnalysisUnreadable(
                    f"{where}: byte {position} is {gap[:8]!r}",
                    "the beginning of a GRIB message",
                    "the file is damaged, or is not GRIB",
                )
            position += zeros
            continue
        length = _length(view, position, where)
        whole = bytes(view[position : position + length])
        if len(whole) < length or whole[-4:] != _END:
            raise AnalysisUnreadable(
                f"{where}: the message at byte {position} is {len(whole)} of {length} bytes long "
                f"and ends in {whole[-4:]!r}",
                "a whole message that ends in b'7777'",
                "the file is truncated: fetch it again",
            )
        yield RawMessage(position, whole)
        position += length


def _length(view: memoryview, position: int, where: str) -> int:
    head = bytes(view[position : position + 16])
    edition = head[7] if len(head) > 7 else 0
    if edition == 2 and len(head) == 16:
        return int.from_bytes(head[8:16], "big")
    if edition == 1:
        length = int.from_bytes(head[4:7], "big")
        if not length & _GRIB1_LARGE:
            return length
        # Beyond 8 MiB edition 1 counts in units of 120 bytes, less the length of section 4.
        return _large_grib1_length(view, position, length)
    raise AnalysisUnreadable(
        f"{where}: the message at byte {position} is of edition {edition}, or cut off",
        "GRIB edition 1 or 2",
    )


def _large_grib1_length(view: memoryview, position: int, length: int) -> int:
    flags = view[position + 8 + 7]
    at = position + 8 + int.from_bytes(view[position + 8 : position + 11], "big")
    for present in (0x80, 0x40):
        if flags & present:
            at += int.from_bytes(view[at : at + 3], "big")
    section4 = int.from_bytes(view[at : at + 3], "big")
    total = (length & ~_GRIB1_LARGE) * 120
    return total - section4 + 4 if section4 < 120 else length


def split(message: bytes, where: str) -> list[bytes]:
    """One message for each field of a GRIB2 message; the message itself if it has only one.

    Raises:
        AnalysisUnreadable: the sections do not fit into the message.
    """
    if message[7] != 2:
        return [message]
    sections = list(_sections(message, where))
    if sum(number == 7 for number, _ in sections) == 1:
        return [message]
    head, kept, fields = message[:16], {}, []
    for number, section in sections:
        # 254 in octet 6 of section 6: the bitmap defined before in this message.
        if not (number == 6 and section[5] == 254):
            kept[number] = section
        if number == 7:
            body = b"".join(kept[n] for n in sorted(kept))
            length = (16 + len(body) + 4).to_bytes(8, "big")
            fields.append(head[:8] + length + body + _END)
    return fields


def _sections(message: bytes, where: str) -> Iterator[tuple[int, bytes]]:
    at = 16
    while message[at : at + 4] != _END:
        length = int.from_bytes(message[at : at + 4], "big")
        number = message[at + 4] if at + 4 < len(message) else 0
        if length < 5 or at + length > len(message) - 4 or not 1 <= number <= 7:
            raise AnalysisUnreadable(
                f"{where}: section {number} of {length} bytes at byte {at} of a message of "
                f"{len(message)} bytes",
                "sections that fill the message",
                "the file is damaged: fetch it again",
            )
        yield number, message[at : at + length]
        at += length


@contextlib.contextmanager
def _handle(message: bytes, where: str) -> Iterator[Any]:
    try:
        handle = eccodes.codes_new_from_message(message)
    except eccodes.CodesInternalError as error:
        raise AnalysisUnreadable(f"{where}: {error}", "a message that ecCodes can read") from error
    try:
        yield handle
    except eccodes.CodesInternalError as error:
        raise AnalysisUnreadable(
            f"{where}: {error}", "a message that ecCodes can decode", "fetch it again"
        ) from error
    finally:
        eccodes.codes_release(handle)


def header(message: bytes, where: str) -> Header | None:
    """What a one-field message holds; None if it is no quantity of an analysis.

    Raises:
        AnalysisUnreadable: it says one of our quantities, in other units.
    """
    with _handle(message, where) as handle:

        def get(key: str, kind: type = str) -> Any:
            return eccodes.codes_get(handle, key, kind)

        known = QUANTITIES.get(get("shortName"))
        if known is None:
            return None
        name, units, on_levels = known
        level = _pressure_level(get) if on_levels else 0
        if level is None or not _instant(get):
            return None
        if get("units") != units:
            raise AnalysisUnreadable(
                f"{where}: {get('shortName')} in {get('units')}", f"{units}", "choose another file"
            )
        base = _time(get("dataDate", int), get("dataTime", int))
        valid = _time(get("validityDate", int), get("validityTime", int))
        number = get("number") if eccodes.codes_is_defined(handle, "number") else "0"
        kind = "" if number in ("0", "") else f"member {number}"
        return Header(FieldKey(name, level), valid, valid - base, kind)


def decode(message: bytes, where: str) -> Oriented:
    """Values of a one-field message, oriented; points without a value are NaN.

    Raises:
        AnalysisUnreadable: not a regular latitude-longitude grid, or damaged data.
    """
    with _handle(message, where) as handle:

        def get(key: str, kind: type = int) -> Any:
            return eccodes.codes_get(handle, key, kind)

        grid = get("gridType", str)
        if grid != "regular_ll" or get("alternativeRowScanning") or get("iScansNegatively"):
            raise AnalysisUnreadable(
                f"{where}: a field on grid {grid!r}",
                "a regular latitude-longitude grid, scanned eastward row by row",
                "interpolate it before",
            )
        ni, nj = get("Ni"), get("Nj")
        sentinel = 9.999e20
        eccodes.codes_set(handle, "missingValue", sentinel)
        values = eccodes.codes_get_values(handle)
        if values.size != ni * nj:
            raise AnalysisUnreadable(f"{where}: {values.size} values", f"{ni} x {nj}")
        if get("bitmapPresent"):
            values[values == sentinel] = np.nan
        columns_first = bool(get("jPointsAreConsecutive"))
        plane = values.reshape(ni, nj).T if columns_first else values.reshape(nj, ni)
        lon = _axis(get, "longitude", ni)
        lat = _axis(get, "latitude", nj)
    return orient(plane, lon, lat)


def _axis(get: Any, name: str, count: int) -> Any:
    first = get(f"{name}OfFirstGridPointInDegrees", float)
    last = get(f"{name}OfLastGridPointInDegrees", float)
    if name == "longitude" and last <= first:
        last += 360.0
    return np.linspace(first, last, count)


def _pressure_level(get: Any) -> int | None:
    kind, level = get("typeOfLevel"), get("level", int)
    if kind == "isobaricInhPa":
        return int(level)
    return None


def _instant(get: Any) -> bool:
    return bool(get("stepType") == "instant")


def _time(date: int, clock: int) -> datetime:
    return datetime(
        date // 10000, date // 100 % 100, date % 100, clock // 100, clock % 100, tzinfo=UTC
    )
