"""The store under damage, full disks and kills: a miss and a reason, never a wrong adapter."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from skillc_compiler.adapter import Adapter, LoraPair, Manifest
from skillc_compiler.durable import write_flushed
from skillc_compiler.errors import AdapterError, StoreError
from skillc_compiler.store import Store
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


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


FILES = ["adapter.gguf", "adapter_model.safetensors", "adapter_config.json"]
DAMAGES = [damage_cut, damage_empty, damage_flip, damage_grow, Path.unlink]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_miss_and_published_anew(
    store: Store, name: str, damage: object
) -> None:
    assert callable(damage)
    path = store.publish(KEY, adapter(), GGUF).folder / name
    damage(path)
    assert store.has(KEY) == (damage is damage_flip)
    with pytest.raises(StoreError, match=rf"is damaged \({name} is .*\); run 'skillc build' again"):
        store.open(KEY)
    assert not store.has(KEY) and leftovers(store) == []
    assert store.publish(KEY, adapter(), GGUF) == store.open(KEY)


@pytest.mark.parametrize("damage", DAMAGES)
def test_publishing_repairs_a_damaged_entry(store: Store, damage: object) -> None:
    assert callable(damage)
    damage(store.publish(KEY, adapter(), GGUF).gguf_path)
    assert store.publish(KEY, adapter(), GGUF).gguf_bytes() == GGUF
    assert store.open(KEY).gguf_bytes() == GGUF
    assert leftovers(store) == []


def edit(**changes: object) -> bytes:
    record = {"key": KEY, "format": 1, "files": {}, "adapter": {}, **changes}
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "manifest.json is not JSON"),
        (b"[" * 100_000, "manifest.json is not JSON"),
        (b"\xff", "manifest.json is not JSON"),
        (b"x" * (2 << 20), "manifest.json is of another version"),
        (b"[]", "manifest.json is of another version"),
        (edit(format=2), "manifest.json is of another version"),
        (edit(key=OTHER), "manifest.json belongs to another entry"),
        (edit(), "manifest.json is not what was written"),
    ],
)
def test_a_malformed_manifest_is_a_miss(store: Store, data: bytes, reason: str) -> None:
    folder = store.publish(KEY, adapter(), GGUF).folder
    (folder / MANIFEST_FILE).write_bytes(data)
    assert not store.has(KEY)
    with pytest.raises(StoreError, match=reason):
        store.open(KEY)
    assert store.keys() == []


def test_any_flipped_bit_of_a_manifest_is_seen_or_harmless(store: Store) -> None:
    path = store.publish(KEY, adapter(), GGUF).folder / MANIFEST_FILE
    data = path.read_bytes()
    for at in range(0, len(data), 7):
        path.parent.mkdir(exist_ok=True)
        flipped = bytearray(data)
        flipped[at] ^= 1
        path.write_bytes(flipped)
        if store.has(KEY):
            assert json.loads(flipped) == json.loads(data)
    path.write_bytes(data)
    assert store.has(KEY)


def test_an_entry_in_anothers_place_is_a_miss(store: Store) -> None:
    store.publish(KEY, adapter(), GGUF).folder.rename(store.root / OTHER)
    with pytest.raises(StoreError, match="belongs to another entry"):
        store.open(OTHER)


def test_bytes_changed_after_opening_are_not_given(store: Store) -> None:
    opened = store.publish(KEY, adapter(), GGUF)
    damage_flip(opened.gguf_path)
    with pytest.raises(StoreError, match="is damaged"):
        opened.gguf_bytes()
    opened.gguf_path.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        opened.gguf_bytes()


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "no space left on the disk; "),
        (errno.EACCES, "no permission; "),
        (errno.EROFS, "the file system is read-only; "),
        (errno.EIO, "Input/output error; "),
    ],
)
@pytest.mark.parametrize("name", ["write_flushed", "flush_file", "flush_folder", "save_peft"])
def test_a_failing_disk_leaves_the_store_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, advice: str, name: str
) -> None:
    store.publish(OTHER, adapter(), GGUF)

    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(f"skillc_compiler.store_entry.{name}", fail)
    with pytest.raises(StoreError, match=f"{KEY}: cannot be published: {advice}"):
        store.publish(KEY, adapter(), GGUF)
    assert (store.keys(), leftovers(store)) == ([OTHER], [])


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError, match="No space left") as error:
        write_flushed(full, b"x")
    assert error.value.errno == errno.ENOSPC


def test_a_bad_adapter_is_not_published(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AdapterError("not finite")

    monkeypatch.setattr("skillc_compiler.store_entry.save_peft", refuse)
    with pytest.raises(AdapterError):
        store.publish(KEY, adapter(), GGUF)
    assert (store.keys(), leftovers(store)) == ([], [])


FOR_EVER = f"""
import sys
sys.path[:] = {sys.path!r}
from pathlib import Path
import numpy as np
from skillc_compiler.adapter import Adapter, LoraPair, Manifest
from skillc_compiler.store import Store
pair = LoraPair(np.ones((2, 600), np.float32), np.ones((400, 2), np.float32))
manifest = Manifest("s", "h", "b", "h", "c", "h", 2, 4.0, ("m",))
adapter = Adapter({{"m": pair}}, 4.0, manifest)
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    store.publish({KEY!r}, adapter, bytes(range(256)) * 1000)
    store.remove({KEY!r})
"""


@pytest.mark.slow
def test_no_kill_leaves_a_torn_entry(store: Store) -> None:
    for i in range(20):
        command = [sys.executable, "-c", FOR_EVER, str(store.root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(i * 0.0037)
            process.kill()
        published = store.keys()
        if KEY in published:
            assert store.open(KEY).gguf_bytes() == bytes(range(256)) * 1000
    assert leftovers(store)
    store.sweep(older_than=-1)
    assert leftovers(store) == []
