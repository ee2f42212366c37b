"""The store: what is published is found again, whole, or it is a miss that says why."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from skillc_compiler.adapter import Adapter, LoraPair, Manifest
from skillc_compiler.durable import write_flushed
from skillc_compiler.errors import StoreError
from skillc_compiler.store import Store, build_key, key_maker
from skillc_compiler.store_entry import MANIFEST_FILE

KEY, OTHER = "a" * 64, "b" * 64
GGUF = b"GGUF" + bytes(range(256)) * 16
DOWN = "model.layers.0.mlp.down_proj"


def adapter(name: str = "deploy", value: float = 1.0) -> Adapter:
    pair = LoraPair(np.full((2, 6), value, np.float32), np.ones((4, 2), np.float32))
    manifest = Manifest(name, "h" * 64, "nano", "b" * 64, "writer", "c" * 64, 2, 4.0, (DOWN,))
    return Adapter({DOWN: pair}, 4.0, manifest)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "store")


def leftovers(store: Store) -> list[str]:
    return [path.name for path in store.root.iterdir() if path.name.startswith(".")]


def test_build_key_depends_on_every_part() -> None:
    options = {"rank": 32, "dtype": "f16"}
    keys = {
        build_key("s", "b", "c", options),
        build_key("x", "b", "c", options),
        build_key("s", "x", "c", options),
        build_key("s", "b", "x", options),
        build_key("s", "b", "c", {}),
        build_key("s", "b", "c", {"rank": "32", "dtype": "f16"}),
    }
    assert len(keys) == 6
    assert build_key("s", "b", "c", {"dtype": "f16", "rank": 32}) in keys


def test_build_key_is_the_same_on_every_machine() -> None:
    text = b'{"base":"b","compiler":"c","format":1,"options":{"dtype":"f16"},"skill":"s"}'
    assert build_key("s", "b", "c", {"dtype": "f16"}) == hashlib.sha256(text).hexdigest()


def test_key_maker_is_build_key() -> None:
    options = {"rank": 32, "note": '"}'}
    key = key_maker("b", "c", options)
    for skill in ("s", "5" * 64, 'odd"}'):
        assert key(skill) == build_key(skill, "b", "c", options)


def test_an_entry_moves_to_another_store(store: Store, tmp_path: Path) -> None:
    published = store.publish(KEY, adapter(), GGUF)
    files = {path.name: path.read_bytes() for path in published.folder.iterdir()}
    other = Store(tmp_path / "other")
    assert other.adopt(KEY, files).manifest == published.manifest
    assert {path.name: path.read_bytes() for path in (other.root / KEY).iterdir()} == files
    assert leftovers(other) == []
    for name in files:
        damaged = files | {name: files[name][:-1] + b"x"}
        lacking = {key: data for key, data in files.items() if key != name}
        for bad in (damaged, lacking):
            with pytest.raises(StoreError, match="is damaged"):
                other.adopt(OTHER, bad)
    with pytest.raises(StoreError, match="belongs to another entry"):
        other.adopt(OTHER, files)
    assert other.keys() == [KEY]
    assert leftovers(other) == []


def test_one_builder_at_a_time(store: Store) -> None:
    with store.building(KEY, wait=True) as first, store.building(OTHER, wait=False) as other:
        assert first and other
        with store.building(KEY, wait=False) as second:
            assert not second
        assert store.keys() == []
    with pytest.raises(StoreError, match="is not a build key"):
        store.building("../x", wait=True)
    assert leftovers(store) == []


def test_what_is_published_is_found(store: Store) -> None:
    assert (store.keys(), store.has(KEY), store.size(KEY), store.total_size()) == ([], False, 0, 0)
    published = store.publish(KEY, adapter(), GGUF)
    opened = store.open(KEY)
    assert opened == published
    assert (opened.key, opened.folder, opened.size) == (KEY, store.root / KEY, len(GGUF))
    assert opened.manifest == adapter().manifest
    assert opened.sha256 == hashlib.sha256(GGUF).hexdigest()
    assert opened.gguf_path.read_bytes() == opened.gguf_bytes() == GGUF
    assert np.array_equal(opened.adapter().pairs[DOWN].a, adapter().pairs[DOWN].a)
    assert store.has(KEY) and store.keys() == [KEY]
    assert store.size(KEY) == sum(path.stat().st_size for path in (store.root / KEY).iterdir())
    assert store.total_size() == store.size(KEY)
    assert leftovers(store) == []


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    stores = [Store(tmp_path / name) for name in "ab"]
    folders = [one.publish(KEY, adapter(), GGUF).folder for one in stores]
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]
    assert sorted(files[0]) == [
        "adapter.gguf",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]


def test_the_manifest_is_written_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write = write_flushed
    order: list[str] = []
    present: list[set[str]] = []

    def spy(path: Path, data: bytes) -> None:
        order.append(path.name)
        present.append({other.name for other in path.parent.iterdir()})
        write(path, data)

    monkeypatch.setattr("skillc_compiler.store_entry.write_flushed", spy)
    store.publish(KEY, adapter(), GGUF)
    assert order[-1] == MANIFEST_FILE
    assert len(present[-1]) == 3


@pytest.mark.parametrize("key", ["", "..", "../x", "a/b", "ABCDEF01", "short", "x" * 64, "a" * 200])
def test_only_hashes_are_keys(store: Store, key: str) -> None:
    for call in (store.has, store.open, store.size, store.remove):
        with pytest.raises(StoreError, match="is not a build key"):
            call(key)
    with pytest.raises(StoreError, match="is not a build key"):
        store.publish(key, adapter(), GGUF)
    assert not store.root.exists()


def test_a_missing_entry_says_so(store: Store) -> None:
    with pytest.raises(StoreError, match=f"{KEY}: not in the store; run 'skillc build'"):
        store.open(KEY)


def test_a_second_publisher_gets_the_first_entry(store: Store) -> None:
    first = store.publish(KEY, adapter(), GGUF)
    inode = first.gguf_path.stat().st_ino
    assert store.publish(KEY, adapter(value=2.0), b"other").gguf_bytes() == GGUF
    assert first.gguf_path.stat().st_ino == inode
    assert leftovers(store) == []


def test_many_publishers_at_once(store: Store) -> None:
    start = threading.Barrier(8)
    results: list[bytes] = []

    def publish() -> None:
        start.wait()
        results.append(store.publish(KEY, adapter(), GGUF).gguf_bytes())

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [GGUF] * 8
    assert (store.keys(), leftovers(store)) == ([KEY], [])


def test_removing(store: Store) -> None:
    store.publish(KEY, adapter(), GGUF)
    store.publish(OTHER, adapter(), GGUF)
    size = store.size(KEY)
    assert store.remove(KEY) == size > len(GGUF)
    assert (store.keys(), leftovers(store), store.remove(KEY)) == ([OTHER], [], 0)


def test_a_file_in_an_entrys_place_is_replaced(store: Store) -> None:
    store.root.mkdir(parents=True)
    (store.root / KEY).write_text("x")
    assert not store.has(KEY)
    assert store.publish(KEY, adapter(), GGUF).gguf_bytes() == GGUF
    assert leftovers(store) == []


def test_sweep_takes_old_orphans_only(store: Store) -> None:
    store.publish(KEY, adapter(), GGUF)
    now = time.time()
    for name, age in {"old": 7200, "new": 60, "of the future": -7200}.items():
        orphan = store.root / f".tmp-{name}"
        orphan.mkdir()
        (orphan / "x").write_bytes(b"123")
        os.utime(orphan, (now - age, now - age))
    assert store.sweep() == 6
    assert leftovers(store) == [".tmp-new"]
    assert store.sweep(older_than=0) == 3
    assert store.has(KEY)
    assert Store(store.root / "none").sweep() == 0


@pytest.mark.parametrize("place", ["root", "parent"])
def test_a_file_where_the_store_should_be(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    store = Store(tmp_path / "file" / "store" if place == "parent" else tmp_path / "file")
    with pytest.raises(StoreError, match="a file is where a folder should be"):
        store.publish(KEY, adapter(), GGUF)
    with pytest.raises(StoreError):
        store.keys()
    assert not store.has(KEY)
