"""Real analyses, encoded messages, and a server that stands in for the mirrors."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray as xr

from mosaic_core.analysis.derive import STANDARD_GRAVITY
from mosaic_core.analysis.sources import fetch_analysis, make_source
from mosaic_core.channels import ERA5_82, LEVELS, VARIABLES, Channel, Channels
from mosaic_core.cycle import Cycle

IFS_LEVELS = (300, 400, 500, 700, 850, 1000)
IFS_CHANNELS = Channels(
    tuple(
        Channel(name, level)
        for name in (
            "geopotential",
            "specific_humidity",
            "temperature",
            "u_component_of_wind",
            "v_component_of_wind",
        )
        for level in IFS_LEVELS
    )
)
IFS_TIMES = tuple(datetime(2024, 6, 3, tzinfo=UTC) + timedelta(hours=6 * i) for i in range(8))
UVT_CHANNELS = Channels(
    tuple(
        Channel(name, level)
        for name in ("temperature", "u_component_of_wind", "v_component_of_wind")
        for level in LEVELS
    )
)
GFS_TIME = datetime(2011, 1, 15, 12, tzinfo=UTC)
HUMIDITY = "specific_humidity_from_relative_humidity"


def ifs_settings(shared_data: Path) -> dict[str, object]:
    path = shared_data / "states/ifs_pl_10deg_2024060300-0412.grib"
    return {"kind": "grib", "name": "ifs", "path": str(path), "derive": [HUMIDITY]}


def gfs_settings(shared_data: Path, **more: object) -> dict[str, object]:
    return {
        "kind": "grib",
        "name": "gfs",
        "path": str(shared_data / "states/gfs.t12z.pgrbf120.2p5deg.grib2"),
        "max_step_hours": 120,
        "derive": ["geopotential_from_height", HUMIDITY],
        **more,
    }


@pytest.fixture(scope="session")
def ifs(shared_data: Path) -> xr.Dataset:
    """Eight 6-hourly IFS analyses on 36 x 19 points, 30 channels."""
    source = make_source(ifs_settings(shared_data))
    return fetch_analysis(source, Cycle(IFS_TIMES[3]), IFS_CHANNELS, IFS_TIMES)


@pytest.fixture(scope="session")
def gfs(shared_data: Path) -> xr.Dataset:
    """GFS on 144 x 73 points, 81 channels, and w at 50 hPa tapered."""
    taper = {"vertical_velocity_50": {"rule": "taper_to_top"}}
    source = make_source(gfs_settings(shared_data, allow_missing=taper))
    return fetch_analysis(source, Cycle(GFS_TIME), ERA5_82, [GFS_TIME])


@pytest.fixture(scope="session")
def era_interim(shared_data: Path) -> xr.Dataset:
    """u, v and t of ERA-Interim as the files have it: 240 x 121 points, north first."""
    names = {"t": "temperature", "u": "u_component_of_wind", "v": "v_component_of_wind"}
    variables = {}
    for short, name in names.items():
        path = shared_data / f"states/erainterim_1p5deg/2005-01-23-0000-{short}.nc"
        with xr.open_dataset(path) as file:
            variables[name] = file[short].drop_vars("time").astype("f4").load()
    ds = xr.Dataset(variables).expand_dims(time=[np.datetime64("2005-01-23", "ns")])
    return ds


SHORT = {v.name: v.short_name for v in VARIABLES.values()} | {"geopotential_height": "gh"}


def encode(
    channel: Channel,
    plane: np.ndarray,
    when: datetime,
    *,
    first_longitude: float = 180.0,
    packing: str = "grid_ccsds",
    step: int = 0,
) -> bytes:
    """A GRIB2 message as in ECMWF open data: north first, gh for z. `plane` ascends."""
    nlat, nlon = plane.shape
    variable = "geopotential_height" if channel.variable == "geopotential" else channel.variable
    values = plane / STANDARD_GRAVITY if variable == "geopotential_height" else plane
    shift = round(first_longitude / (360 / nlon))
    values = np.roll(values, -shift, axis=1)[::-1]
    base = when - timedelta(hours=step)
    sample = "regular_ll_pl_grib2" if channel.level else "regular_ll_sfc_grib2"
    handle = eccodes.codes_grib_new_from_samples(sample)
    spacing = 360 / nlon
    keys = {
        "dataDate": int(f"{base:%Y%m%d}"),
        "dataTime": int(f"{base:%H%M}"),
        "step": step,
        "Ni": nlon,
        "Nj": nlat,
        "latitudeOfFirstGridPointInDegrees": 90.0,
        "latitudeOfLastGridPointInDegrees": -90.0,
        "longitudeOfFirstGridPointInDegrees": first_longitude,
        "longitudeOfLastGridPointInDegrees": (first_longitude - spacing) % 360,
        "iDirectionIncrementInDegrees": spacing,
        "jDirectionIncrementInDegrees": 180 / (nlat - 1),
        "shortName": SHORT[variable],
        "packingType": packing,
        "bitsPerValue": 24,
    }
    if channel.level:
        keys["level"] = channel.level
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, values.astype(float).ravel())
    message = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return bytes(message)


def waves(
    channels: Channels, seed: int = 0, shape: tuple[int, int] = (19, 36)
) -> dict[str, object]:
    """Some plane for each channel; no atmosphere."""
    rng = np.random.default_rng(seed)
    return {c.name: 250 + 10 * rng.standard_normal(shape) for c in channels}


def run_file(
    channels: Channels, planes: dict[str, object], when: datetime, **how: object
) -> tuple[bytes, str]:
    """A run's file and its index."""
    data, lines = b"", []
    for channel in channels:
        message = encode(channel, planes[channel.name], when, **how)  # type: ignore[arg-type]
        short = SHORT[channel.variable]
        entry: dict[str, object] = {
            "date": f"{when:%Y%m%d}",
            "time": f"{when:%H%M}",
            "type": "fc",
            "stream": "oper",
            "step": "0",
            "levtype": "pl" if channel.level else "sfc",
            "param": "gh" if short == "z" else short,
            "_offset": len(data),
            "_length": len(message),
        }
        if channel.level:
            entry["levelist"] = str(channel.level)
        data += message
        lines.append(json.dumps(entry))
    return data, "\n".join(lines) + "\n"


Fault = Callable[[BaseHTTPRequestHandler, bytes], bool]


@dataclass
class Mirror:
    """Files by path, faults by path suffix (each used once, in order), and what was asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def fail(self, suffix: str, *faults: Fault) -> None:
        self.faults.setdefault(suffix, []).extend(faults)


def status(code: int) -> Fault:
    def answer(handler: BaseHTTPRequestHandler, _: bytes) -> bool:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return answer


def cut_off(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
    """Promise everything, send half, hang up."""
    handler.send_response(206)
    handler.send_header("Content-Range", _said(handler, body))
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True
    return True


def short_body(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
    """Send half, and say that this is all."""
    handler.send_response(206)
    handler.send_header("Content-Range", _said(handler, body))
    handler.send_header("Content-Length", str(len(body) // 2))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    return True


def garbled(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
    """The right length, with the end missing."""
    handler.send_response(206)
    handler.send_header("Content-Range", _said(handler, body))
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:-100] + b"\0" * 100)
    return True


def trickle(handler: BaseHTTPRequestHandler, body: bytes) -> bool:
    """One byte every tenth of a second."""
    handler.send_response(206)
    handler.send_header("Content-Range", _said(handler, body))
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    try:
        for byte in body[:100]:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.1)
    except OSError:
        pass
    handler.close_connection = True
    return True


def _said(handler: BaseHTTPRequestHandler, body: bytes) -> str:
    start = int(handler.headers["Range"].removeprefix("bytes=").split("-")[0])
    return f"bytes {start}-{start + len(body) - 1}/*"


@pytest.fixture
def mirrors() -> Iterator[Callable[[], Mirror]]:
    """Starts servers on loopback."""
    servers: list[ThreadingHTTPServer] = []

    def start() -> Mirror:
        mirror = Mirror("")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                mirror.requests.append((self.path, asked))
                body = mirror.files.get(self.path.lstrip("/"))
                code = 200
                if body is not None and asked:
                    assert "," not in asked, "mirrors refuse several ranges"
                    first, last = asked.removeprefix("bytes=").split("-")
                    body, code = body[int(first) : int(last) + 1], 206
                for suffix, faults in mirror.faults.items():
                    if self.path.endswith(suffix) and faults and faults.pop(0)(self, body or b""):
                        return
                if body is None:
                    status(404)(self, b"")
                    return
                self.send_response(code)
                if code == 206:
                    self.send_header("Content-Range", _said(self, body))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        mirror.url = f"http://127.0.0.1:{server.server_address[1]}"
        return mirror

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
