"""What a consumer does, on a folder, on S3 and through a plain web server."""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mosaic_core.errors import ConfigurationError, IntegrityError, PublicationError, StoreError
from mosaic_core.publication import client, layout
from mosaic_core.publication.publish import publish
from mosaic_core.storage import open_store
from tests.publication.helpers import CYCLE, stage


@pytest.fixture
def published(object_store_url):
    store = open_store(object_store_url)
    return store, publish(store, stage(store)).manifest


def test_every_changed_byte_is_found(published):
    store, manifest = published
    keys = [info.key for info in store.list(manifest.prefix) if info.size]
    assert len(keys) > 5
    for key in keys:
        original = store.get(key)
        middle = len(original) // 2
        changed = bytes([original[middle] ^ 1])
        store.put(key, original[:middle] + changed + original[middle + 1 :])
        with pytest.raises((IntegrityError, PublicationError)) as caught:
            client.verify(store.root)
        assert key.removeprefix(f"{manifest.prefix}/") in str(caught.value)
        store.put(key, original)
    assert client.verify(store.root).ok


def test_missing_altered_and_extra_objects_are_all_named(published):
    store, manifest = published
    zarr = f"{manifest.prefix}/statistics.zarr"
    store.delete(f"{zarr}/zarr.json")
    store.put(f"{manifest.prefix}/maps/t2m.png", b"other")
    store.put(f"{zarr}/stranger", b"")
    report = client.verify(store.root, strict=False)
    assert not report.ok
    assert report.missing == ("statistics.zarr/zarr.json",)
    assert report.altered == ("maps/t2m.png",)
    assert report.extra == ("statistics.zarr/stranger",)
    with pytest.raises(IntegrityError, match=r"altered: maps/t2m\.png"):
        client.verify(store.root, CYCLE)


def test_missing_list_of_a_zarr_is_named_without_calling_its_objects_extra(published):
    store, manifest = published
    store.delete(f"{manifest.prefix}/statistics.zarr.sha256")
    report = client.verify(store.root, strict=False)
    assert (report.missing, report.extra) == (("statistics.zarr.sha256",), ())


def test_folder_of_one_forecast_verifies_by_itself(published):
    store, manifest = published
    assert client.verify(store.url(manifest.prefix)).ok


def test_product_is_fetched_whole_and_checked(published, tmp_path):
    store, manifest = published
    files = client.get(store.root, None, "statistics", tmp_path / "out")
    assert len(files) == manifest.asset("statistics").objects
    client.get(store.root, CYCLE, "maps/t2m.png", tmp_path / "out")
    assert (tmp_path / "out" / "maps" / "t2m.png").read_bytes().startswith(b"picture")
    store.put(f"{manifest.prefix}/maps/t2m.png", b"forged")
    with pytest.raises(IntegrityError, match="is not what was published"):
        client.get(store.root, CYCLE, "maps", tmp_path / "bad")
    assert list(Path(tmp_path / "bad").rglob("*.png")) == []


def test_what_is_not_published_is_said(published):
    store, _ = published
    with pytest.raises(PublicationError, match="2026-11-20T06Z is not published"):
        client.open_forecast(store.root, "2026-11-20T06Z")
    with pytest.raises(PublicationError, match="one of maps, statistics"):
        client.open_forecast(store.root, product="ensemble")
    with pytest.raises(PublicationError, match="a Zarr"):
        client.open_forecast(store.root, product="maps")
    with pytest.raises(PublicationError, match="no forecast of era5"):
        client.latest(store.root, "era5")
    with pytest.raises(ConfigurationError):
        client.latest(store.root, "../hres")


def test_forecasts_are_listed_oldest_first(published):
    store, _ = published
    publish(store, stage(store, CYCLE.shift(-24)))
    stage(store, CYCLE.shift(6))
    assert [m.cycle for m in client.list_forecasts(store.root)] == [CYCLE.shift(-24), CYCLE]


def test_variant_is_asked_for_where_there_are_several(published):
    store, _ = published
    store.put(f"{layout.variant_prefix('era5')}/in-progress.json", b"{}")
    assert client.variants(store.root) == ("era5", "hres")
    with pytest.raises(ConfigurationError, match="era5, hres"):
        client.latest(store.root)
    assert client.latest(store.root, "hres").cycle == CYCLE


def test_waiting_ends_with_the_cycle_or_with_the_time(published):
    store, _ = published
    wanted = CYCLE.shift(6)
    with pytest.raises(PublicationError, match="was not published within"):
        client.wait_for(store.root, wanted, timeout=0.05, poll=0.01)
    later = threading.Timer(0.2, lambda: publish(store, stage(store, wanted)))
    later.start()
    assert client.wait_for(store.root, wanted.id, timeout=20, poll=0.02).cycle == wanted
    later.join()


def test_missing_folder_is_said(tmp_path):
    with pytest.raises(StoreError, match="there is no folder"):
        client.latest(tmp_path / "nowhere")


def test_reader_beside_a_publisher_sees_only_whole_forecasts(published):
    store, _ = published
    stop = threading.Event()
    problems, reads = [], 0

    def read() -> None:
        nonlocal reads
        newest = CYCLE
        while not stop.is_set():
            try:
                report = client.verify(store.root)
                cycle = client.latest(store.root).cycle
                assert cycle >= newest and report.ok  # noqa: PT018
                newest, reads = cycle, reads + 1
            except Exception as error:
                problems.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(1, 5):
        publish(store, stage(store, CYCLE.shift(6 * i)))
    stop.set()
    reader.join()
    assert problems == []
    assert reads > 0


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """A web server of files that answers byte ranges, as those in use do."""

    def log_message(self, *_args):
        pass

    def do_GET(self):
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        start, end = 0, len(data)
        if asked:
            first, last = asked.groups()
            start = int(first) if first else len(data) - int(last)
            end = min(len(data), int(last) + 1) if first and last else len(data)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
        self.end_headers()
        self.wfile.write(data[start:end])


@pytest.fixture
def web(tmp_path):
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *a: RangeHandler(*a, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_forecasts_are_read_through_a_plain_web_server(web, tmp_path):
    store = open_store(tmp_path)
    manifest = publish(store, stage(store)).manifest
    with pytest.raises(ConfigurationError, match="variant"):
        client.latest(web)
    assert client.latest(web, "hres").cycle == CYCLE
    assert float(client.open_forecast(web, variant="hres")["2m_temperature"].mean()) == 1.0
    assert client.verify(web, CYCLE, "hres").ok
    (tmp_path / manifest.prefix / "maps" / "t2m.png").unlink()
    assert client.verify(web, None, "hres", strict=False).missing == ("maps/t2m.png",)
    with pytest.raises(StoreError, match="read only"):
        open_store(web).put("a", b"")


def test_client_needs_no_torch_prefect_or_database():
    code = (
        "import sys; import mosaic_core.publication.client;"
        "bad = {'torch', 'prefect', 'sqlalchemy', 'boto3', 'xarray'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 20
