"""The documentation is about this program: generated help is fresh, links and settings exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from skillc.cli import VERBS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *REPOSITORY.glob("*.md")])
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


@pytest.mark.slow
def test_the_command_line_page_is_fresh() -> None:
    """`make docs` writes it anew."""
    command = [sys.executable, str(DOCS / "make_cli.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run 'make docs'"


def test_the_command_line_page_has_every_verb() -> None:
    page = (DOCS / "cli.md").read_text("utf-8")
    for verb, summary in VERBS.items():
        assert f"\n## skillc {verb}\n" in page
        assert summary in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text("utf-8")
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index
    clients = (DOCS / "clients" / "index.md").read_text("utf-8")
    for page in DOCS.glob("clients/*.md"):
        assert page.name == "index.md" or f"({page.name})" in clients
