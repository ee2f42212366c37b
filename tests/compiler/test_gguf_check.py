"""What is checked before llama.cpp sees an adapter."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.compiler import tiny
from tests.compiler.adapter_cases import (
    DEADLY,
    DOWN,
    REFUSED,
    SILENT,
    SOUND,
    UP,
    matrix_pair,
    sound,
    with_parts,
)

from skillc_compiler.errors import AdapterError
from skillc_compiler.gguf_base import BaseInfo
from skillc_compiler.gguf_check import GgufError, read_header, validate_adapter

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseInfo:
    return tiny.write_base(tmp_path_factory.mktemp("base") / "base.gguf")


def refuse(data: bytes, base: BaseInfo) -> str:
    start = time.monotonic()
    with pytest.raises(AdapterError) as caught:
        validate_adapter(data, base)
    assert time.monotonic() - start < 1
    message = str(caught.value)
    assert message.startswith("adapter refused: ") and "\n" not in message and len(message) < 250
    return message


@pytest.mark.parametrize("name", DEADLY)
def test_what_kills_llama_cpp(base: BaseInfo, name: str) -> None:
    refuse(DEADLY[name].encode(), base)


@pytest.mark.parametrize("name", SILENT)
def test_what_loads_but_is_wrong(base: BaseInfo, name: str) -> None:
    refuse(SILENT[name].encode(), base)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_malformed(base: BaseInfo, name: str) -> None:
    refuse(REFUSED[name].encode(), base)


@pytest.mark.parametrize("data", [b"", b"G", b"GGUF", bytes(4096), b"\xff" * 4096])
def test_what_is_no_gguf_at_all(base: BaseInfo, data: bytes) -> None:
    refuse(data, base)


def test_token_embd_is_refused_on_untied_bases_too(tmp_path: Path) -> None:
    untied = tiny.write_base(tmp_path / "base.gguf", tie_word_embeddings=False)
    refuse(DEADLY["token_embd of two ranks"].encode(), untied)
    output = with_parts(*matrix_pair("output.weight", (4, 64), (520, 4)))
    assert validate_adapter(output.encode(), untied).rank == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alpha U32", "adapter.lora.alpha is U32, not F32"),
        ("alpha missing", "adapter.lora.alpha is missing"),
        ("architecture", "general.architecture is 'llama', not 'qwen3'"),
        ("another base", "made for base '000000000000', not tiny"),
        ("half", f"{UP}.lora_a lacks its other half"),
        ("rank 257", f"{DOWN} has rank 257; the limit is 256"),
        ("nan in 0 of type 8", f"{UP}.lora_a has values that are not finite"),
    ],
)
def test_messages_say_what_is_wrong(base: BaseInfo, name: str, words: str) -> None:
    assert words in refuse({**DEADLY, **SILENT, **REFUSED}[name].encode(), base)


def write_all(folder: Path, files: dict[str, bytes]) -> list[Path]:
    paths = []
    for i, data in enumerate(files.values()):
        paths.append(folder / f"{i:05d}.gguf")
        paths[-1].write_bytes(data)
    return paths


def outcomes(base: BaseInfo, paths: list[Path]) -> list[str]:
    """What llama.cpp does with each file, in a process of its own."""
    command = [sys.executable, "-m", "tests.compiler.load_all", str(base.path), *map(str, paths)]
    roots = os.pathsep.join(str(ROOT / part) for part in ("compiler", "runtime"))
    environment = {**os.environ, "PYTHONPATH": roots}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-200:], done.stderr[-500:])
    return [line.split()[1] for line in done.stdout.splitlines()]


def test_what_is_sound_passes_and_loads(base: BaseInfo, tmp_path: Path) -> None:
    files = {name: file.encode() for name, file in SOUND.items()}
    files["trailing bytes"] += b"more"
    for data in files.values():
        checked = validate_adapter(data, base)
        assert checked.sha256 == hashlib.sha256(data).hexdigest()
        assert len(checked.tensors) == 4
    assert outcomes(base, write_all(tmp_path, files)) == ["loads"] * len(files)


def test_what_kills_llama_cpp_still_does(base: BaseInfo, tmp_path: Path) -> None:
    """Two of the deadly files, so that the table above cannot rot unnoticed."""
    for name in ("alpha U32", "type 26"):
        paths = write_all(tmp_path, {name: DEADLY[name].encode()})
        with pytest.raises(AssertionError, match=r"-6|-11"):
            outcomes(base, paths)


def test_every_truncation_is_refused(base: BaseInfo) -> None:
    data = sound().encode()
    first = min(info.offset for info in read_header(data).tensors.values())
    for size in [*range(first + 64), *range(first, len(data), 64), len(data) - 1]:
        refuse(data[:size], base)


def mutants(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies with a few bytes changed; three of four of them in the header only."""
    rng = np.random.default_rng(seed)
    header = min(info.offset for info in read_header(data).tensors.values())
    for i in range(count):
        room = header if i % 4 else len(data)
        mutant = bytearray(data)
        for at in rng.integers(0, room, size=int(rng.integers(1, 4))):
            kind = rng.integers(3)
            flipped = mutant[at] ^ (1 << int(rng.integers(8)))
            mutant[at] = (flipped, int(rng.integers(256)), (0, 255)[int(rng.integers(2))])[kind]
        yield bytes(mutant)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed"), [("f32", 1), ("f16", 2), ("q8_0", 3)])
def test_mutants_are_refused_or_load(base: BaseInfo, tmp_path: Path, kind: str, seed: int) -> None:
    passed = {}
    slowest = 0.0
    for i, data in enumerate(mutants(SOUND[kind].encode(), 400, seed)):
        start = time.monotonic()
        try:
            validate_adapter(data, base)
            passed[str(i)] = data
        except AdapterError as error:
            assert "\n" not in str(error)
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 0.5
    assert 20 < len(passed) < 300
    assert outcomes(base, write_all(tmp_path, passed)) == ["loads"] * len(passed)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "empty").touch()
    for path in (fifo, tmp_path, Path(os.devnull), Path("/dev/zero"), tmp_path / "empty"):
        with pytest.raises((GgufError, OSError)):
            read_header(path)


def test_path_and_bytes_read_alike(tmp_path: Path) -> None:
    data = sound().encode()
    (tmp_path / "x.gguf").write_bytes(data)
    assert read_header(tmp_path / "x.gguf") == read_header(data)
