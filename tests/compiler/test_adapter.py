"""Adapters, their manifests, and the PEFT folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skillc_compiler.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Adapter,
    LoraPair,
    Manifest,
    load_peft,
    save_peft,
)
from skillc_compiler.errors import AdapterError
from skillc_compiler.tensor_file import decode_tensors, encode_tensors

DOWN = "model.layers.0.mlp.down_proj"
UP = "model.layers.1.mlp.up_proj"


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "skill_name": "deploy",
        "skill_hash": "a" * 64,
        "base_name": "nano",
        "base_hash": "b" * 64,
        "compiler_id": "writer",
        "compiler_hash": "c" * 64,
        "rank": 4,
        "alpha": 8.0,
        "targets": (DOWN, UP),
        "licence": "MIT",
        "probe": {"exact": 0.5},
    }
    return Manifest(**{**values, **changes})


def adapter(seed: int = 0, alpha: float = 8.0) -> Adapter:
    rng = np.random.default_rng(seed)

    def pair(rank: int, d_in: int, d_out: int) -> LoraPair:
        a = rng.standard_normal((rank, d_in)).astype(np.float32)
        return LoraPair(a, rng.standard_normal((d_out, rank)).astype(np.float32))

    return Adapter({UP: pair(2, 6, 10), DOWN: pair(4, 10, 6)}, alpha, manifest())


def test_manifest_round_trip() -> None:
    first = manifest()
    assert Manifest.from_json(first.to_json()) == first
    assert Manifest.from_dict(first.to_dict()) == first
    keys = list(json.loads(first.to_json()))
    assert keys == sorted(keys)


def test_manifest_ignores_unknown_keys_and_fills_defaults() -> None:
    data = {**manifest().to_dict(), "files": {}}
    del data["activation"], data["probe"], data["licence"]
    read = Manifest.from_dict(data)
    assert (read.activation, read.probe, read.licence) == ("full", {}, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rank", 0),
        ("rank", True),
        ("rank", 4.0),
        ("alpha", float("nan")),
        ("alpha", "8"),
        ("activation", "half"),
        ("targets", "down_proj"),
        ("targets", [1]),
        ("skill_hash", None),
        ("licence", 3),
        ("probe", {"exact": float("inf")}),
        ("probe", [1]),
    ],
)
def test_manifest_refuses_bad_values(key: str, value: object) -> None:
    with pytest.raises(AdapterError, match=key):
        Manifest.from_dict({**manifest().to_dict(), key: value})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"rank": 4}', "[" * 100_000])
def test_manifest_refuses_bad_text(text: str) -> None:
    with pytest.raises(AdapterError, match="manifest"):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [((4, 3), (5, 3), "f4"), ((4,), (5, 4), "f4"), ((4, 3), (5, 4), "f8"), ((0, 3), (5, 0), "f4")],
)
def test_pair_refuses_factors_that_do_not_fit(
    a: tuple[int, ...], b: tuple[int, ...], kind: str
) -> None:
    with pytest.raises(AdapterError, match="LoRA factors"):
        LoraPair(np.ones(a, kind), np.ones(b, kind))


def test_delta_scales_by_alpha_over_rank() -> None:
    pair = LoraPair(np.full((2, 3), 2, np.float32), np.full((4, 2), 3, np.float32))
    made = Adapter({DOWN: pair}, 6.0, manifest())
    assert np.array_equal(made.delta(DOWN), np.full((4, 3), 36.0))


def test_adapter_refuses_nothing_and_bad_alpha() -> None:
    with pytest.raises(AdapterError, match="no LoRA factors"):
        Adapter({}, 1.0, manifest())
    with pytest.raises(AdapterError, match="alpha"):
        adapter(alpha=float("inf"))


def test_peft_round_trip(tmp_path: Path) -> None:
    first = adapter()
    save_peft(first, tmp_path / "x")
    second = load_peft(tmp_path / "x")
    assert (second.alpha, second.manifest) == (first.alpha, first.manifest)
    assert list(second.pairs) == [DOWN, UP]
    for module, pair in first.pairs.items():
        assert np.array_equal(pair.a, second.pairs[module].a)
        assert np.array_equal(pair.b, second.pairs[module].b)


def test_peft_bytes_do_not_depend_on_order(tmp_path: Path) -> None:
    first = adapter()
    save_peft(first, tmp_path / "x")
    save_peft(replace(first, pairs=dict(reversed(list(first.pairs.items())))), tmp_path / "y")
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "factors"),
    [
        ({"use_rslora": True}, {DOWN: 2.0, UP: 2**0.5}),
        ({"alpha_pattern": {"mlp.up_proj": 16}}, {DOWN: 1.0, UP: 2.0}),
        ({"alpha_pattern": {"p_proj": 16}}, {DOWN: 1.0, UP: 1.0}),
    ],
)
def test_peft_scalings_are_folded(
    tmp_path: Path, changes: dict[str, Any], factors: dict[str, float]
) -> None:
    first = adapter()
    save_peft(first, tmp_path)
    edit_config(tmp_path, changes)
    second = load_peft(tmp_path)
    for module, factor in factors.items():
        np.testing.assert_allclose(second.delta(module), first.delta(module) * factor, rtol=1e-5)


def edit_config(folder: Path, changes: dict[str, Any]) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    (folder / CONFIG_FILE).write_text(json.dumps({**config, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"peft_type": "LOHA"},
        {"lora_alpha": 0},
        {"lora_alpha": "8"},
        {"alpha_pattern": {"up_proj": "x"}},
    ],
)
def test_peft_refuses_other_kinds(tmp_path: Path, changes: dict[str, Any]) -> None:
    save_peft(adapter(), tmp_path)
    edit_config(tmp_path, changes)
    with pytest.raises(AdapterError):
        load_peft(tmp_path)


def drop_half(tensors: dict[str, Any]) -> None:
    del tensors[f"base_model.model.{DOWN}.lora_B.weight"]


def add_magnitude(tensors: dict[str, Any]) -> None:
    tensors[f"base_model.model.{DOWN}.lora_magnitude_vector.weight"] = np.ones(3, np.float32)


@pytest.mark.parametrize("damage", [drop_half, add_magnitude])
def test_peft_refuses_other_tensors(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    save_peft(adapter(), tmp_path)
    path = tmp_path / WEIGHTS_FILE
    tensors, metadata = decode_tensors(path.read_bytes(), "x")
    damage(tensors)
    path.write_bytes(encode_tensors(tensors, metadata))
    with pytest.raises(AdapterError, match=r"down_proj"):
        load_peft(tmp_path)


def test_peft_needs_a_manifest(tmp_path: Path) -> None:
    save_peft(adapter(), tmp_path)
    path = tmp_path / WEIGHTS_FILE
    tensors, _ = decode_tensors(path.read_bytes(), "x")
    path.write_bytes(encode_tensors(tensors, {"format": "pt"}))
    with pytest.raises(AdapterError, match="manifest"):
        load_peft(tmp_path)
    assert load_peft(tmp_path, manifest()).manifest == manifest()


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE])
def test_peft_damaged_files_are_one_clear_error(tmp_path: Path, name: str) -> None:
    save_peft(adapter(), tmp_path)
    path = tmp_path / name
    good = path.read_bytes()
    for data in (b"", good[:7], good[:-1] if name == WEIGHTS_FILE else good[:-3], b"\xff" * 64):
        path.write_bytes(data)
        with pytest.raises(AdapterError) as caught:
            load_peft(tmp_path)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(AdapterError, match="cannot be read"):
        load_peft(tmp_path)


@pytest.mark.parametrize(("kind", "dtype"), [("F16", "<f2"), ("BF16", None)])
def test_half_precision_reads_as_float32(kind: str, dtype: str | None) -> None:
    values = np.array([[1.0, -2.5], [0.15625, 64.0]], np.float32)
    raw = values.astype(dtype).tobytes() if dtype else (values.view("<u4") >> 16).astype("<u2")
    header = json.dumps({"w": {"dtype": kind, "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    tensors, _ = decode_tensors(len(header).to_bytes(8, "little") + header + bytes(raw), "x")
    assert np.array_equal(tensors["w"], values)
    assert tensors["w"].dtype == np.float32
