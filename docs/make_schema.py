"""Writes docs/skillc.schema.json, the JSON schema of skillc.toml; `--check` only compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from skillc.settings import json_schema

FILE = Path(__file__).with_name("skillc.schema.json")


def main() -> int:
    text = json.dumps(json_schema(), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        return 0 if FILE.is_file() and FILE.read_text("utf-8") == text else 1
    FILE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
