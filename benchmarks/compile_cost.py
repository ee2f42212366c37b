"""What compiling a skill costs: prefills of its text on nano and on larger bases, and memory.

`ratio_nano`, `ratio_06b`, `ratio_4b` and `ratio_8b` are the time to write an adapter (one reading
of the text, the network, the SVDs) over one prefill of the same text by the same base, in torch on
one thread; `ratio_4b_judged` and its like add the probe behind the verdict. The larger bases have
the shapes of Qwen3-0.6B, 4B and 8B and random weights in bfloat16 on the disk; their layers are
read one after the other, for the prefill as for the compiling, and computed in float32.
`peak_gb_4b` is the largest resident memory of the process that compiles with it. `layers_4b` says
how many layers it had, fewer than the model's where the disk is to hold no more than 10 GB: time
grows with them, memory by what one more layer's activations take.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from skillc.figures import print_figures
from skillc_compiler.bases import Base, find_base

MOST_DISK_GB = 10.0
COMMON: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "torch_dtype": "bfloat16",
}
_KEYS = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
    "tie_word_embeddings",
)  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "06b": dict(zip(_KEYS, (28, 1024, 3072, 16, True), strict=True)),
    "4b": dict(zip(_KEYS, (36, 2560, 9728, 32, True), strict=True)),
    "8b": dict(zip(_KEYS, (36, 4096, 12288, 32, False), strict=True)),
}
SMALL = {"vocab_size": 8192, "hidden_size": 256, "intermediate_size": 512, "head_dim": 32}


def weights_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a base's weights by name."""
    from skillc_compiler.arch import of_config

    arch = of_config(config)
    return dict(arch.shapes(arch.config(config)))


def gigabytes(config: dict[str, Any]) -> float:
    """The size of a base's weights in bfloat16."""
    return sum(2 * int(np.prod(shape)) for shape in weights_of(config).values()) / 1e9


def that_fits(config: dict[str, Any]) -> dict[str, Any]:
    """The base with as many of its layers as MOST_DISK_GB holds."""
    layers = config["num_hidden_layers"]
    while layers > 1 and gigabytes({**config, "num_hidden_layers": layers}) > MOST_DISK_GB:
        layers -= 1
    return {**config, "num_hidden_layers": layers}


def write_random(folder: Path, config: dict[str, Any]) -> None:
    """Write random weights of this shape as safetensors in bfloat16."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    shapes = weights_of(config)
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    # One block of noise over and over: only size and spread matter.
    noise = np.random.default_rng(0).standard_normal(1 << 22, np.float32) * np.float32(0.02)
    block = (noise.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    ones = np.full(config["hidden_size"], 0x3F80, np.uint16).tobytes()
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            left = 2 * int(np.prod(shape))
            source = block if len(shape) > 1 else ones
            while left:
                left -= file.write(source[: min(left, len(source))])


def install_writer(base: Base, sites: int) -> Base:
    """Put an untrained writer of the last `sites` layers beside a base."""
    import torch

    from skillc_compiler.families.calibrate import untrained
    from skillc_compiler.families.writer_net import WriterConfig
    from skillc_compiler.published.convert import write_compiler

    assert base.hf is not None and base.compiler_dir is not None
    config = json.loads((base.hf / "config.json").read_text())
    layers = config["num_hidden_layers"]
    net = WriterConfig(
        hidden=config["hidden_size"],
        inner=config["intermediate_size"],
        layers=layers,
        vocab=config["vocab_size"],
        sites=tuple(range(layers))[-sites:],
        width=8,
        blocks=0,
        heads=1,
    )
    state = {k: v.to(torch.float32) for k, v in untrained(net).state_dict().items()}
    table = {"family": "writer", "id": "writer-untrained", "writer": net.to_dict()}
    write_compiler(base.compiler_dir, base, table, state)
    return base


def measure(base: Base, skills: int, rank: int) -> dict[str, float]:
    """Median seconds to prefill, to write and to compile with the probe, over generated skills."""
    import torch

    from skillc_compiler.data.generate import Generator, Shape
    from skillc_compiler.families.interface import load_compiler
    from skillc_compiler.families.writer import Writer
    from skillc_compiler.families.writer_net import low_rank
    from skillc_compiler.skill import parse_skill

    torch.set_num_threads(1)
    writer = load_compiler(base)
    assert isinstance(writer, Writer)
    generator = Generator("test", 11, Shape(facts=(4, 10)))
    rows, tokens = [], []
    for number in range(skills):
        sample = generator.sample()
        skill = parse_skill(sample.text.encode(), folder=sample.name)
        ids = writer.host.ids(writer.tokenizer.encode(skill.text).ids)

        def prefill(ids: torch.Tensor = ids) -> None:
            with torch.inference_mode():
                hidden = writer.host.model.base_model(ids, use_cache=False).last_hidden_state
                # The first token of an answer is part of a prefill.
                hidden[0, -1:].float() @ writer.host.output.float().T

        def write(text: str = skill.text) -> None:
            with torch.inference_mode():
                for keys, values in writer.memories(text).values():
                    low_rank(keys, values, rank)

        if number == 0:
            prefill()
        times = (seconds(prefill), seconds(write))
        rows.append((*times, seconds(lambda skill=skill: writer.compile(skill, rank=rank))))  # type: ignore[misc]
        tokens.append(ids.shape[1])
    read, made, judged = (statistics.median(column) for column in zip(*rows, strict=True))
    return {
        "ratio": made / read,
        "ratio_judged": judged / read,
        "prefill_s": read,
        "compile_s": judged,
        "tokens": float(statistics.median(tokens)),
        "peak_gb": peak_bytes() / 1e9,
    }


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_bytes() -> int:
    """The largest resident memory this process has had."""
    try:
        # What getrusage says of a child starts with its parent's peak on Linux.
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        (found,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(found) << 10
    except (OSError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10


def in_child(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """`measure` of the base in `folder`, in a process of its own."""
    command = [sys.executable, __file__, "--child", str(folder), "--rank", str(arguments.rank)]
    ran = subprocess.run(
        [*command, "--skills-large", str(arguments.skills_large)],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def child_base(folder: Path) -> Base:
    """The random base; its tokenizer and template are nano's. Compiling reads no other GGUF."""
    return Base("random", folder / "base.gguf", folder, folder / "hf", {"layers": "disk"})


def main() -> int:
    """Measure and print; 0 when the targets hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, last")
    parser.add_argument("--bases", nargs="*", choices=SHAPES, default=[*SHAPES], metavar="SIZE")
    parser.add_argument("--layers", type=int, help="of the larger bases, in place of their own")
    parser.add_argument("--skills", type=int, default=8, help="compiled on nano")
    parser.add_argument("--skills-large", type=int, default=1, help="compiled on each larger base")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="two layers of a small shape")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        found = measure(child_base(arguments.child), arguments.skills_large, arguments.rank)
        print(json.dumps(found))
        return 0
    # The folder of weights goes away with the program, however that ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    nano = measure(find_base(), 2 if arguments.quick else arguments.skills, arguments.rank)
    figures = {"ratio_nano": nano["ratio"], "ratio_nano_judged": nano["ratio_judged"]}
    for name in arguments.bases:
        figures |= large_figures(name, arguments)
    rounded = {key: round(value, 3) for key, value in figures.items()}
    targets: dict[str, tuple[str, float]] = {
        key: ("<=", 24) for key in rounded if key.startswith("peak_gb")
    }
    print_figures("compile_cost", rounded, targets, as_json=arguments.json)
    return 0 if all(rounded[key] <= 24 for key in targets) else 1


def large_figures(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """What compiling for one larger base costs; its weights are gone afterwards."""
    config = {**COMMON, **SHAPES[name]}
    if arguments.quick:
        config |= {**SMALL, "num_hidden_layers": 2}
    if arguments.layers:
        config["num_hidden_layers"] = arguments.layers
    config = that_fits(config)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        size = gigabytes(config)
        print(f"{name}: {size:.1f} GB on the disk", file=sys.stderr, flush=True)
        write_random(folder / "hf", config)
        shutil.copy(find_base().gguf, folder / "base.gguf")
        install_writer(child_base(folder), sites=4)
        found = in_child(arguments, folder)
    return {
        f"ratio_{name}": found["ratio"],
        f"ratio_{name}_judged": found["ratio_judged"],
        f"peak_gb_{name}": found["peak_gb"],
        f"layers_{name}": float(config["num_hidden_layers"]),
        f"prefill_s_{name}": found["prefill_s"],
        f"compile_s_{name}": found["compile_s"],
        f"tokens_{name}": found["tokens"],
        f"disk_gb_{name}": size,
    }


if __name__ == "__main__":
    sys.exit(main())
