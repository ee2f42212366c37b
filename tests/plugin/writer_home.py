"""A base of the tests' tiny shape with a real, untrained writer, for what runs in processes."""

from __future__ import annotations

from pathlib import Path

from tests.compiler import tiny

from skillc_compiler.bases import Base


def write_writer_base(folder: Path) -> Base:
    """Write base.gguf, compiler.safetensors and compiler.json into `folder`."""
    from skillc_compiler.families.calibrate import untrained
    from skillc_compiler.families.writer_net import WriterConfig
    from skillc_compiler.published.convert import write_compiler

    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_base(folder / "base.gguf")
    base = Base(folder.name, folder / "base.gguf", folder)
    config = WriterConfig(
        hidden=64, inner=96, layers=2, vocab=520, sites=(1,), width=8, blocks=0, heads=1
    )
    table = {"family": "writer", "id": "writer-untrained", "writer": config.to_dict()}
    write_compiler(folder, base, table, dict(untrained(config).state_dict()))
    return base
