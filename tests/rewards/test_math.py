from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from fractions import Fraction
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reward_fns.math_equality.compare import Value
from reward_fns.math_equality.forms import read
from reward_fns.math_equality.text import clean
from tests.rewards.support import assert_sound, respond, row
from verl_air.errors import RewardError
from verl_air.rewards import WorkerPool, WorkerTimeoutError, compute_score

DEADLINE_S = 1.0
# How much more than its deadline a call may take before it counts as not killed: generous, for a busy machine. What it
# waits for would take an hour (the sleep) or for ever; benchmarks/rewards.py measures the time itself.
SLACK_S = 60.0


async def score(answer: str, truth: str, deadline: float = 20.0) -> dict[str, float]:
    routes = {"*/*": {"name": "math", "deadline_s": deadline}}
    return await compute_score("math/train", respond(answer), truth, row("math"), routes=routes)


EQUAL = [("42", "42"), (r"\frac{1}{2}", "0.5"), ("2(x+1)", "2x+2"), (r"\{1, 2\}", r"\{2, 1\}"), (r"2\ln 2", r"\ln 4")]
UNEQUAL = [
    ("-42", "42"), ("x+1", "x+2"), (r"\neq 42", "42"), ("not 42", "42"), ("(1,2)", "(2,1)"), (r"2\ln 3", r"\ln 4"),
]  # fmt: skip


@pytest.mark.parametrize(("pair", "acc"), [*((pair, 1.0) for pair in EQUAL), *((pair, 0.0) for pair in UNEQUAL)])
async def test_equal_mathematics_is_right_and_nothing_else(pair: tuple[str, str], acc: float) -> None:
    """Through the whole reward; test_math_forms has the rules."""
    answer, truth = pair
    assert (await score(f"\\boxed{{{answer}}}", truth))["acc"] == acc
    assert (await score(f"\\boxed{{1}} no, \\boxed{{{answer}}}", truth))["acc"] == acc


async def test_no_box_is_bad_format() -> None:
    unboxed = await score("2", "2")
    assert (unboxed["acc"], unboxed["format_ok"]) == (0.0, 0.0)


async def test_an_unreadable_ground_truth_names_the_row() -> None:
    with pytest.raises(RewardError, match=r"row 0 .*ground truth"):
        await score(r"\boxed{2}", " ")


HOSTILE = {
    "brackets": "(" * 600,
    "braces": "{" * 1000 + "}" * 900,
    "fractions": r"\frac{" * 300,
    "integrals": r"\int " * 300,
    "tower": "9^{9^{9^{9}}}",
    "big power": "(x+1)^{99999}",
    "factorials": "100000!!!!!",
    "sum": r"\sum_{i=1}^{10^{12}} i^{i}",
    "matrices": r"\begin{pmatrix} 1 & " * 150,
    "product": "(x+1)" * 300,
    "roots": r"\sqrt{" * 250 + "2" + "}" * 250,
    "sets": r"\{1, " * 300,
}


@pytest.mark.slow
async def test_hostile_mathematics_is_bounded_by_its_deadline_and_never_right() -> None:
    await score(r"\boxed{x}", "y")  # warm the children
    for name, text in HOSTILE.items():
        start = time.monotonic()
        result = await score(f"\\boxed{{{text}}}" if name != "braces" else text, "7", DEADLINE_S)
        took = time.monotonic() - start
        assert_sound(result)
        assert result["acc"] != 1.0, name
        assert took < DEADLINE_S + SLACK_S, (name, took)
    assert (await score(r"\boxed{0.5}", r"\frac{1}{2}"))["acc"] == 1.0, (
        "the pool works on after its children were killed"
    )


PIECES = st.lists(
    st.sampled_from(
        ["\\frac{", "}", "{", "x", "2", "^", "_", "\\sqrt", "(", ")", "=", "\\pi", "\\", "$", " ", "!", "\x00"]
    )
    | st.text(max_size=3),
    max_size=10,
).map("".join)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PIECES)
def test_no_mathematics_makes_it_stumble(text: str) -> None:
    assert_sound(asyncio.run(score(f"\\boxed{{{text}}}", r"\frac{1}{2}", 5.0)))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,234.50", "1234.5"), ("-3", "-3"), ("$5$", "5"), (r"\$5", "5"), ("1,23", None), ("٣", None), ("1e5", "100000")],
)
def test_plain_numbers(text: str, value: str | None) -> None:
    form = read(clean(text))
    numbers = [number.exact for number, _ in form.readings] if isinstance(form, Value) else []
    assert numbers == ([] if value is None else [Fraction(value)])


# -- the pool ----------------------------------------------------------------------------------------------------------


def children() -> set[int]:
    return {p.pid for p in psutil.Process().children() if "verl_air.rewards.worker" in " ".join(p.cmdline())}


async def test_the_child_is_really_killed_and_replaced() -> None:
    before = children()
    pool = WorkerPool("time:sleep", size=1)
    assert await pool.call(30.0, 0) is None
    (child,) = children() - before
    start = time.monotonic()
    with pytest.raises(WorkerTimeoutError, match=r"killed after 0\.3 s"):
        await pool.call(0.3, 3600)
    assert time.monotonic() - start < 0.3 + SLACK_S
    assert not psutil.pid_exists(child)
    assert await pool.call(30.0, 0) is None


async def test_waiting_for_a_free_child_does_not_count() -> None:
    pool = WorkerPool("time:sleep", size=1)
    await pool.call(30.0, 0)
    assert await asyncio.gather(*(pool.call(4.0, 1.0) for _ in range(5))) == [None] * 5


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("math:sqrt", (-1,), "ValueError"),
        ("threading:Lock", (), "cannot pickle"),
        ("os:_exit", (3,), "died"),
        ("os:abort", (), "died"),
        ("no_such_module:f", (), "cannot start: ModuleNotFoundError"),
        ("math:no_such_function", (), "cannot start: AttributeError"),
    ],
)
async def test_a_fault_in_the_child_is_reported(target: str, arguments: tuple[Any, ...], message: str) -> None:
    pool = WorkerPool(target, size=1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=message):
            await pool.call(30.0, *arguments)


async def test_a_child_that_eats_memory_fails_alone() -> None:
    pool = WorkerPool("builtins:bytearray", size=1, memory_mb=512)
    with pytest.raises(RuntimeError, match="MemoryError"):
        await pool.call(30.0, 4 << 30)


BUSY = """
import asyncio, threading
from verl_air.rewards import WorkerPool
pool = WorkerPool("time:sleep", size=1)
asyncio.run(pool.call(60.0, 0))
threading.Thread(target=lambda: asyncio.run(pool.call(3600.0, 3600))).start()
print("busy", flush=True)
"""


def test_a_busy_child_dies_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"busy\n"
        orphans = psutil.Process(parent.pid).children()
        parent.kill()
    assert len(orphans) == 1
    assert not psutil.wait_procs(orphans, timeout=SLACK_S)[1]
