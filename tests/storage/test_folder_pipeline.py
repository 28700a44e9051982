"""Sharded arrays in folders, as zarrs reads them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec
from zarr.codecs.numcodecs import LZMA

from mosaic_core.errors import StoreError
from mosaic_core.storage import ObjectStore, open_store
from mosaic_core.storage.folder_pipeline import FolderPipeline

SHAPE, CHUNKS, SHARDS = (5, 6, 7, 9), (2, 2, 1, 4), (4, 4, 1, 12)
VALUES = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
SHARD = "a/x/c/1/0/0/0"


def made(folder: Path, **codecs: Any) -> ObjectStore:
    store = open_store(folder)
    codecs = {"shards": SHARDS, "compressors": BloscCodec(cname="zstd")} | codecs
    array = zarr.create_group(store.zarr("a")).create_array(
        "x", shape=SHAPE, dtype="float32", chunks=CHUNKS, fill_value=np.nan, **codecs
    )
    array[:] = VALUES
    return store


def opened(store: ObjectStore, *, read_only: bool = True) -> Any:
    mode: Any = "r" if read_only else "r+"
    return zarr.open_group(store.zarr("a", read_only=read_only), mode=mode)["x"]


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return opened(made(tmp_path_factory.mktemp("folder")))


def pipeline(array: Any) -> Any:
    return array._async_array.codec_pipeline


def part(size: int) -> st.SearchStrategy[Any]:
    """One index, a slice, or indices in order."""
    whole = st.integers(0, size - 1)
    return (
        whole
        | st.slices(size).filter(lambda s: s.step is None or s.step > 0)
        | st.lists(whole, min_size=1, max_size=3, unique=True).map(sorted)
    )


@settings(deadline=None, max_examples=150)
@given(chosen=st.tuples(*map(part, SHAPE)))
def test_whatever_part_is_asked_for_is_what_numpy_takes(
    array: Any, chosen: tuple[Any, ...]
) -> None:
    expected = VALUES
    for axis in reversed(range(len(SHAPE))):
        expected = expected[(slice(None),) * axis + (chosen[axis],)]
    np.testing.assert_array_equal(array.oindex[chosen], expected)
    if not any(isinstance(one, list) for one in chosen):
        np.testing.assert_array_equal(array[chosen], expected)


@pytest.fixture
def no_fallback(array: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any) -> None:
        raise AssertionError("zarr itself")

    monkeypatch.setattr(type(pipeline(array).python_impl), "read", refuse)


@pytest.mark.usefixtures("no_fallback")
@pytest.mark.parametrize("chosen", [np.s_[1], np.s_[:, 3], np.s_[:, :, 2, 5], np.s_[4, 5, 6, 8]])
def test_integers_do_not_fall_back(array: Any, chosen: Any) -> None:
    np.testing.assert_array_equal(array[chosen], VALUES[chosen])


def test_points_masks_and_orders_are_read(array: Any) -> None:
    points = [0, 4, 1], [5, 0, 3], [6, 0, 2], [8, 1, 8]
    np.testing.assert_array_equal(array.vindex[points], VALUES[points])
    mask = np.array([True, False, True, True, False])
    np.testing.assert_array_equal(array.oindex[mask], VALUES[mask])
    with zarr.config.set({"array.order": "F"}):
        np.testing.assert_array_equal(
            opened(open_store(array.store.store.prefix.parent))[:], VALUES
        )


def test_a_pickled_array_reads(array: Any) -> None:
    again = pickle.loads(pickle.dumps(array))
    assert isinstance(pipeline(again), FolderPipeline)
    np.testing.assert_array_equal(again[:, 2], VALUES[:, 2])


def test_a_shard_that_is_gone_reads_as_missing(tmp_path: Path) -> None:
    store = made(tmp_path)
    (tmp_path / SHARD).unlink()
    found = opened(store)[4]
    assert np.isnan(found[:4, 0]).all()
    np.testing.assert_array_equal(found[4:], VALUES[4, 4:])


def test_only_sharded_arrays_of_a_folder_to_read_are_read_so(tmp_path: Path) -> None:
    sharded = made(tmp_path / "sharded")
    plain = made(tmp_path / "plain", shards=None)
    assert isinstance(pipeline(opened(sharded)), FolderPipeline)
    others = (
        opened(plain),
        opened(sharded, read_only=False),
        zarr.open_group(tmp_path / "sharded/a", mode="r")["x"],
    )
    for array in others:
        assert not isinstance(pipeline(array), FolderPipeline)
        np.testing.assert_array_equal(array[:], VALUES)


@pytest.mark.filterwarnings("error:Array is unsupported by ZarrsCodecPipeline")
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
def test_codecs_that_zarrs_does_not_know_are_read_by_zarr(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = made(tmp_path, compressors=[LZMA()])
    with caplog.at_level("INFO"):
        array = opened(store)
    assert not isinstance(pipeline(array), FolderPipeline)
    assert "is read by zarr itself: codec numcodecs.lzma" in caplog.text
    np.testing.assert_array_equal(array[:, 2], VALUES[:, 2])


def test_attributes_do_not_matter(tmp_path: Path) -> None:
    store = made(tmp_path, attributes={"missing_value": float("nan")})
    assert isinstance(pipeline(opened(store)), FolderPipeline)


def test_the_pipeline_that_others_chose_stays_theirs(tmp_path: Path) -> None:
    code = (
        "import zarr; zarr.config.set({'codec_pipeline.path': 'zarrs.ZarrsCodecPipeline'})\n"
        "from tests.storage.test_folder_pipeline import made, opened, pipeline, Path\n"
        "store = made(Path('f')); print(type(pipeline(opened(store))).__name__)\n"
        "print(type(pipeline(zarr.open_group('f/a', mode='r')['x'])).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True, text=True,
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.stdout.split() == ["FolderPipeline", "ZarrsCodecPipeline"]


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(lambda whole: b"", id="empty"),
        pytest.param(lambda whole: whole[:50], id="cut short"),
        pytest.param(lambda whole: whole[:-20] + bytes(20), id="index"),
        pytest.param(lambda whole: bytes(200) + whole[200:], id="chunk"),
    ],
)
@pytest.mark.parametrize("chosen", [np.s_[4, :4, 0], np.s_[:]], ids=["the shard", "all"])
def test_damage_is_told_with_the_name_of_the_object(
    tmp_path: Path, spoilt: Any, chosen: Any
) -> None:
    store = made(tmp_path)
    shard = tmp_path / SHARD
    shard.write_bytes(spoilt(shard.read_bytes()))
    with pytest.raises(RuntimeError, match=f"{SHARD} is damaged"):
        opened(store)[chosen]


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_whichever_byte_is_wrong_it_is_told_as_damage(spoilable: Any, data: st.DataObject) -> None:
    """A chunk has no checksum: a wrong byte may also come through as a wrong value."""
    array, shard, whole = spoilable
    place = data.draw(st.integers(0, len(whole) - 1))
    wrong = bytearray(whole)
    wrong[place] ^= data.draw(st.integers(1, 255))
    shard.write_bytes(wrong)
    for chosen in (np.s_[4], np.s_[:, :, 0, 3], np.s_[:]):
        told = None
        try:
            array[chosen]
        except RuntimeError as error:
            told = str(error)
        assert told is None or f"{SHARD} is damaged" in told


@pytest.fixture(scope="module")
def spoilable(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("spoilable")
    store = made(folder)
    return opened(store), folder / SHARD, (folder / SHARD).read_bytes()


def test_what_the_folder_refuses_is_a_store_error(tmp_path: Path) -> None:
    store = made(tmp_path)
    (tmp_path / SHARD).unlink()
    (tmp_path / SHARD).symlink_to(tmp_path / SHARD)
    with pytest.raises(StoreError, match=f"cannot read .*{SHARD}: .*symbolic links"):
        opened(store)[4, :4, 0]
