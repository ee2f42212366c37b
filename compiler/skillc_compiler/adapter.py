"""The adapter of one skill: LoRA factors, the manifest that says whose they are, PEFT files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler.errors import AdapterError
from skillc_compiler.ridge import Ridge
from skillc_compiler.tensor_file import decode_tensors, encode_tensors

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
ACTIVATIONS = ("full", "tail")
MAX_FILE_BYTES = 1 << 30

_PREFIX = "base_model.model."
_STRINGS = ("skill_name", "skill_hash", "base_name", "base_hash", "compiler_id", "compiler_hash")
# Options of PEFT that change what the factors mean and that no adapter of ours uses.
_PLAIN_OPTIONS = {
    "use_dora": False,
    "fan_in_fan_out": False,
    "lora_bias": False,
    "bias": "none",
    "modules_to_save": None,
    "alora_invocation_tokens": None,
}


@dataclass(frozen=True, slots=True, eq=False)
class LoraPair:
    """The two factors of one module: `a` float32 [r, in], `b` float32 [out, r].

    Raises AdapterError when the shapes or types do not fit together.
    """

    a: Matrix
    b: Matrix

    def __post_init__(self) -> None:
        if self.a.ndim != 2 or self.b.ndim != 2 or self.a.shape[0] != self.b.shape[1]:
            raise AdapterError(f"LoRA factors do not fit: a {self.a.shape}, b {self.b.shape}")
        if self.rank < 1:
            raise AdapterError("LoRA factors of rank 0")
        if self.a.dtype != "float32" or self.b.dtype != "float32":
            raise AdapterError(f"LoRA factors are {self.a.dtype} and {self.b.dtype}, not float32")

    @property
    def rank(self) -> int:
        """The inner dimension r."""
        return int(self.a.shape[0])


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an adapter was made from, by what, and how it is to be used; raises AdapterError.

    `activation` is "full" (acts on the whole prompt) or "tail" (from the point of activation on).
    """

    skill_name: str
    skill_hash: str
    base_name: str
    base_hash: str
    compiler_id: str
    compiler_hash: str
    rank: int
    alpha: float
    targets: tuple[str, ...]
    activation: str = "full"
    tool_version: str = ""
    licence: str | None = None
    source: str | None = None
    probe: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*_STRINGS, "tool_version"):
            _require(isinstance(getattr(self, name), str), name, "must be a string")
        for name in ("licence", "source"):
            _require(isinstance(getattr(self, name), str | None), name, "must be a string or null")
        _require(type(self.rank) is int and self.rank >= 1, "rank", "must be an integer >= 1")
        good_alpha = _is_number(self.alpha) and self.alpha > 0
        _require(good_alpha, "alpha", "must be a finite number above 0")
        _require(self.activation in ACTIVATIONS, "activation", "must be 'full' or 'tail'")
        _require(all(isinstance(t, str) for t in self.targets), "targets", "must hold strings")
        _require(all(map(_is_number, self.probe.values())), "probe", "must hold finite numbers")

    def to_dict(self) -> dict[str, Any]:
        """The manifest as plain JSON values."""
        return {**asdict(self), "targets": list(self.targets), "probe": dict(self.probe)}

    def to_json(self) -> str:
        """The manifest as JSON text with sorted keys; equal manifests give equal bytes."""
        return json.dumps(self.to_dict(), sort_keys=True, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, data: object) -> Manifest:
        """Inverse of `to_dict`; keys it does not know are ignored. Raises AdapterError."""
        if not isinstance(data, dict):
            raise AdapterError("manifest: not a JSON object")
        known = {key: data[key] for key in cls.__dataclass_fields__ if key in data}
        missing = [k for k in (*_STRINGS, "rank", "alpha", "targets") if k not in known]
        _require(not missing, ", ".join(missing), "is missing")
        _require(isinstance(known["targets"], list | tuple), "targets", "must be a list")
        _require(isinstance(known.get("probe", {}), dict), "probe", "must be an object")
        return cls(**{**known, "targets": tuple(known["targets"])})

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Inverse of `to_json`. Raises AdapterError."""
        return cls.from_dict(_parse_json(text, "manifest"))


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """The LoRA of one skill: `delta(W) = (alpha / r) * b @ a` for each module in `pairs`.

    `pairs` is keyed by the Hugging Face module path, as in "model.layers.0.mlp.down_proj"; so are
    `ridges`, which only the GGUF keeps.
    """

    pairs: Mapping[str, LoraPair]
    alpha: float
    manifest: Manifest
    ridges: Mapping[str, Ridge] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.pairs:
            raise AdapterError("the adapter has no LoRA factors")
        if not _is_number(self.alpha) or self.alpha <= 0:
            raise AdapterError(f"the adapter's alpha must be a number above 0, not {self.alpha!r}")

    @property
    def rank(self) -> int:
        """The largest rank among the pairs."""
        return max(pair.rank for pair in self.pairs.values())

    def delta(self, module: str) -> Matrix:
        """The dense change of one module's weight, float32 [out, in]."""
        pair = self.pairs[module]
        scaled: Matrix = (pair.b @ pair.a) * pair.a.dtype.type(self.alpha / pair.rank)
        return scaled


def save_peft(adapter: Adapter, folder: Path) -> None:
    """Write the PEFT folder: adapter_model.safetensors (float32) and adapter_config.json.

    The same adapter gives the same bytes. The manifest travels in the safetensors metadata.
    """
    tensors = {}
    for module, pair in adapter.pairs.items():
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = pair.a
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = pair.b
    manifest = json.dumps(adapter.manifest.to_dict(), sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    weights = encode_tensors(tensors, {"format": "pt", "skillc": manifest})
    (folder / WEIGHTS_FILE).write_bytes(weights)
    config = json.dumps(_peft_config(adapter), sort_keys=True, indent=2, ensure_ascii=False)
    (folder / CONFIG_FILE).write_text(config + "\n", encoding="utf-8")


def load_peft(folder: Path, manifest: Manifest | None = None) -> Adapter:
    """Read a PEFT LoRA folder; `manifest` replaces the one in the file and is needed without one.

    rsLoRA and alpha_pattern are folded into `b`. Raises AdapterError for anything that is not
    plain LoRA on linear modules (DoRA, biases, saved modules, other tensors).
    """
    config = _parse_json(_read(folder / CONFIG_FILE), str(folder / CONFIG_FILE))
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise AdapterError(f"{folder / CONFIG_FILE}: not a LoRA configuration")
    for option, plain in _PLAIN_OPTIONS.items():
        if config.get(option, plain) not in (plain, None):
            raise AdapterError(f"{folder / CONFIG_FILE}: {option} is not supported")
    path = folder / WEIGHTS_FILE
    tensors, metadata = decode_tensors(_read(path), str(path))
    if manifest is None:
        if "skillc" not in metadata:
            raise AdapterError(f"{path}: no skillc manifest inside")
        manifest = Manifest.from_json(metadata["skillc"])
    alpha = config.get("lora_alpha", 8)
    if not _is_number(alpha) or alpha <= 0:
        raise AdapterError(f"{folder / CONFIG_FILE}: lora_alpha must be a number above 0")
    pairs = _pair_up(tensors, path)
    for module, pair in pairs.items():
        factor = _extra_scale(config, module, pair.rank)
        if factor != 1.0:
            pairs[module] = LoraPair(pair.a, pair.b * pair.b.dtype.type(factor))
    return Adapter(pairs, float(alpha), manifest)


def _peft_config(adapter: Adapter) -> dict[str, Any]:
    ranks = {module: pair.rank for module, pair in adapter.pairs.items()}
    alpha = adapter.alpha
    return {
        "alpha_pattern": {},
        "base_model_name_or_path": adapter.manifest.base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": adapter.rank,
        "rank_pattern": {m: r for m, r in ranks.items() if r != adapter.rank},
        # Full paths: a suffix would also wrap the modules of layers this adapter leaves alone.
        "target_modules": sorted(ranks),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def _pair_up(tensors: Mapping[str, Matrix], path: Path) -> dict[str, LoraPair]:
    halves: dict[str, dict[str, Matrix]] = {}
    for name, value in tensors.items():
        module, dot, half = name.removesuffix(".weight").rpartition(".")
        if not dot or half not in ("lora_A", "lora_B") or not module.startswith(_PREFIX):
            raise AdapterError(f"{path}: tensor {name!r} is not a LoRA factor")
        halves.setdefault(module.removeprefix(_PREFIX), {})[half] = value
    for module, found in halves.items():
        if len(found) != 2:
            raise AdapterError(f"{path}: module {module} has only {next(iter(found))}")
    return {m: LoraPair(halves[m]["lora_A"], halves[m]["lora_B"]) for m in sorted(halves)}


def _extra_scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """PEFT's scaling of this module over the plain lora_alpha / rank."""
    alpha = config.get("lora_alpha", 8)
    pattern = config.get("alpha_pattern") or {}
    own = next((v for key, v in pattern.items() if f".{module}".endswith(f".{key}")), alpha)
    if not _is_number(own):
        raise AdapterError(f"alpha_pattern of {module} must be a number")
    return float(own / alpha * (math.sqrt(rank) if config.get("use_rslora") else 1.0))


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise AdapterError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read ({error.strerror})") from error


def _parse_json(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{where}: not JSON") from error


def _require(good: bool, name: str, rule: str) -> None:
    if not good:
        raise AdapterError(f"manifest: {name} {rule}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
