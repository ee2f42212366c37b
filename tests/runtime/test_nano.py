"""What is bit for bit the same on a small random base is so on the base that ships with skillc.

Not among these: stacked sets against separate adapters, which agree within 1e-4 only where weights
are float32; nano's are float16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.runtime.conftest import CONTEXT, engines
from tests.runtime.support import write_adapter
from tests.runtime.test_engine import (
    test_a_then_b_equals_cold_b as test_a_then_b,
)
from tests.runtime.test_engine import (
    test_base_is_bit_identical_after_adapters as test_base_after_adapters,
)
from tests.runtime.test_engine import (
    test_prefix_is_never_reused_across_sets as test_prefix_of_other_sets,
)
from tests.runtime.test_engine import (
    test_prefix_is_reused_up_to_the_token_that_differs as test_rollback,
)
from tests.runtime.test_engine import (
    test_random_switches_equal_cold_runs as test_sixty_switches,
)
from tests.runtime.test_engine import (
    test_reused_prefix_is_bit_identical as test_reuse,
)
from tests.runtime.test_scheduler import (
    test_adapters_of_running_answers_are_not_freed as test_more_sets_than_room,
)
from tests.runtime.test_scheduler import (
    test_answers_at_once_equal_answers_alone as test_at_once,
)
from tests.runtime.test_scheduler import (
    test_two_sets_by_turns_after_every_token as test_two_sets_by_turns,
)

from skillc_compiler.bases import find_base
from skillc_compiler.gguf_base import BaseInfo, read_base_info
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine

__all__ = [
    "test_a_then_b",
    "test_at_once",
    "test_base_after_adapters",
    "test_more_sets_than_room",
    "test_prefix_of_other_sets",
    "test_reuse",
    "test_rollback",
    "test_sixty_switches",
    "test_two_sets_by_turns",
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base() -> BaseInfo:
    return read_base_info(find_base("nano").gguf)


@pytest.fixture(scope="module")
def adapters(base: BaseInfo, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    """Four random adapters at scale 1."""
    folder = tmp_path_factory.mktemp("adapters")
    return [write_adapter(folder, base, seed) for seed in range(4)]


@pytest.fixture
def fresh(base: BaseInfo) -> Iterator[Callable[..., Engine]]:
    """Makes engines of the test's own."""
    yield from engines(base, n_ctx=CONTEXT)
