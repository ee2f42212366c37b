"""`skillc top`: reads a server's page, shows it, and says in one line when there is none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from skillc.cli import report, run, skillc
from skillc.prometheus import Page
from skillc.top import Look, lines, look, view
from skillc_compiler.errors import ServeError

PAGE = r"""# HELP skillc_errors_total Answers that are errors, by code.
# TYPE skillc_errors_total counter
skillc_errors_total{code="429"} 2
skillc_errors_total{code="a\"b\\c"} 1
skillc_requests_running 3
skillc_requests_waiting 1
skillc_answers_total{reason="stop"} 40
skillc_prompt_tokens_total 1000
skillc_cached_tokens_total 250
skillc_elided_tokens_total 77
skillc_generated_tokens_total 500
skillc_adapters_loaded 2
skillc_adapter_loads_total 4
skillc_set_switches_total 9
skillc_decodes_total 100
skillc_decoded_tokens_total 250
skillc_time_to_first_token_seconds_bucket{le="0.1"} 5
skillc_time_to_first_token_seconds_bucket{le="0.2"} 10
skillc_time_to_first_token_seconds_bucket{le="+Inf"} 10
skillc_skill_requests_total{as="adapter",skill="deploy"} 7
skillc_skill_requests_total{as="text",skill="deploy"} 1
skillc_skill_requests_total{as="adapter",skill="[bold]"} 1
skillc_skill_generated_tokens_total{skill="deploy"} 300
skillc_skill_time_to_first_token_seconds_bucket{skill="deploy",le="0.1"} 8
skillc_skill_time_to_first_token_seconds_bucket{skill="deploy",le="+Inf"} 8
broken line
also_broken nothing
"""
HEALTH = {"status": "ok", "base": "nano", "skills": 2, "problems": {}}


class Stub(ThreadingHTTPServer):
    """A server that says what a test wants it to."""

    health: object = HEALTH
    page = PAGE
    status = 200
    keys: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])
        health = self.path == "/health"
        text = json.dumps(self.server.health) if health else self.server.page
        self.send_response(self.server.status if health else 200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub(("127.0.0.1", 0), Handler)
    server.keys = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(stub: Stub) -> str:
    return f"http://127.0.0.1:{stub.server_address[1]}"


def test_pages_are_read() -> None:
    page = Page(PAGE)
    assert page.total("skillc_errors_total") == 3
    assert page.total("skillc_errors_total", code='a"b\\c') == 1
    assert page.total("missing") == 0
    assert page.values("skillc_skill_requests_total", "skill") == ["[bold]", "deploy"]
    name = "skillc_time_to_first_token_seconds"
    quantiles = [page.quantile(name, share) for share in (0.25, 0.5, 1.0)]
    assert quantiles == [pytest.approx(value) for value in (0.05, 0.1, 0.2)]
    assert page.quantile("missing", 0.5) is None
    assert Page('x_bucket{le="1"} 0\nx_bucket{le="+Inf"} 4').quantile("x", 0.5) == 1.0


def test_one_look_as_lines(stub: Stub) -> None:
    done = CliRunner().invoke(skillc, ["top", "--url", url(stub) + "/v1", "--once"])
    assert done.exit_code == 0, done.output
    for line in (
        "status       ok: nano, 2 skills",
        "requests     3 running, 1 waiting, 40 answered, 3 errors",
        "tokens       500 generated",
        "first token  p50 100 ms, p99 198 ms",
        "spared       250 tokens cached (25% of prompts), 77 elided",
        "engine       2 adapters in memory, 4 loads, 9 switches, 2.5 tokens a batch",
        "skill deploy: 8 requests, 300 tokens, first token p50 50 ms",
        "skill [bold]: 1 requests, 0 tokens, first token p50 -",
    ):
        assert line in done.output.splitlines()


def test_rates_are_since_the_last_look() -> None:
    before = Look(HEALTH, Page("skillc_generated_tokens_total 400"), 10.0)
    now = Look(HEALTH, Page(PAGE), 12.0)
    assert "tokens       500 generated, 50.0 a second" in list(lines(now, before))
    # A server that was started again counts from nothing.
    assert "0.0 a second" in "\n".join(lines(before, now))


def test_a_terminal_sees_the_same() -> None:
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as capture:
        console.print(view(Look(HEALTH, Page(PAGE), 0.0)))
        console.print(view(Look(HEALTH, Page(""), 0.0)))
    shown = capture.get()
    assert "3 running, 1 waiting" in shown
    assert "[bold]" in shown
    assert "deploy" in shown


def test_a_server_that_is_not_well_is_shown(stub: Stub) -> None:
    stub.status = 503
    stub.health = {**HEALTH, "status": "failed", "problems": {"base": "gone"}}
    assert next(lines(look(url(stub)))) == "status       failed: nano, 2 skills; base: gone"


def test_the_key_is_sent(stub: Stub) -> None:
    look(url(stub), "secret")
    assert stub.keys == ["Bearer secret"] * 2


def test_no_server_is_one_line(capsys: pytest.CaptureFixture[str], stub: Stub) -> None:
    free = url(stub)
    stub.status = 401
    other = {**HEALTH}
    del other["status"]
    for where, said in ((free, "--api-key"), ("http://127.0.0.1:1", "no server answers")):
        with pytest.raises(ServeError) as failure:
            run(["top", "--url", where, "--once"])
        assert report(failure.value) == 2
        line = capsys.readouterr().err
        assert said in line
        assert line.count("\n") == 1
    stub.status, stub.health = 200, other
    with pytest.raises(ServeError, match="no skillc server"):
        look(free)
    for strange in ("nonsense", "http://[", "file:///etc/passwd"):
        with pytest.raises(ServeError):
            look(strange)
