"""The model of step time: against closed forms, and what it must not do."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from studies.scaling.__main__ import main
from studies.scaling.assumptions import Assumptions
from studies.scaling.simulation import Clock, draw_lengths, judged, simulate
from studies.scaling.sweep import group_cost
from verl_air.errors import ConfigError

pytestmark = pytest.mark.exhaustive

FOLDER = Path(__file__).parent
QUIET = Assumptions(failure=0.0)


def test_sync_without_spread_is_a_closed_form() -> None:
    a = QUIET.changed(length_sigma=0.0, judge_per_s=1e9, driver_us=0.0, poll_s=0.0)
    gpus, intents = 16, 8
    rows = intents * 4 * 3
    wait = 2000 * (1 / 80 + rows / (gpus * 2500)) + a.judge_latency_s
    train = a.train_fixed_s + rows * 2300 / (gpus * 3000)
    found = simulate(a, gpus, "sync", intents, steps=4)
    assert found.wait_s == pytest.approx(wait, rel=1e-6)
    assert found.step_s == pytest.approx(wait + train + 5 + 0.5 * 4, rel=1e-6)


def test_the_last_of_exponential_lengths() -> None:
    """The mean of the largest of k is the k-th harmonic number; many GPUs make a token cost the same for all."""
    k, token_s = 12, 1 / QUIET.sequence_tokens_per_s
    lengths = np.random.default_rng(0).exponential(100.0, (4000, k))
    last = [Clock.of(np.zeros(k), row, 1e12, QUIET).when(row).max() for row in lengths]
    assert np.mean(last) == pytest.approx(token_s * 100 * sum(1 / i for i in range(1, k + 1)), rel=0.02)


def test_sequences_share_a_gpu() -> None:
    a = QUIET.changed(sequence_tokens_per_s=1e12, peak_tokens_per_s=10.0)
    ends = np.array([10.0, 20.0, 30.0])
    clock = Clock.of(np.zeros(3), ends, 1, a)
    assert clock.when(ends) == pytest.approx([3.0, 5.0, 6.0])
    assert clock.made(4.0) == pytest.approx(15.0)


def test_a_judge_serves_one_after_the_other() -> None:
    assert judged(np.array([0.0, 5.0, 0.0]), 0.5, 1.0) == pytest.approx([3.0, 7.0, 5.0])
    assert judged(np.array([0.0, 100.0]), 0.5, 0.0) == pytest.approx([2.0, 102.0])


def test_lengths_are_alike_within_an_intent() -> None:
    a = QUIET.changed(length_max=10**9, same_intent=0.4, same_prompt=0.1)
    logs = np.log(draw_lengths(a, np.random.default_rng(1), 20000))
    assert np.corrcoef(logs[:, 0, 0], logs[:, 1, 0])[0, 1] == pytest.approx(0.4, abs=0.02)
    assert np.corrcoef(logs[:, 0, 0], logs[:, 0, 1])[0, 1] == pytest.approx(0.5, abs=0.02)
    assert logs.std() == pytest.approx(0.6, abs=0.01)


def test_whole_groups_without_a_failure() -> None:
    a = QUIET.changed(failure=0.01)
    assert a.whole_group_chance == pytest.approx(0.99 ** (4 * 3))
    found = simulate(a, 64, "colocate_async", 256, steps=16)
    assert found.replaced == pytest.approx(1 - 0.99**12, abs=0.02)
    assert simulate(a, 64, "sync", 8, steps=2).useful == pytest.approx(0.99**12)
    assert simulate(a.changed(incomplete_groups="no_air"), 64, "sync", 8, steps=2).useful == pytest.approx(0.99)


def test_sync_waits_no_longer_for_whole_groups() -> None:
    cost = group_cost(QUIET, 16, "sync", 48)
    assert cost.extra == 0
    assert cost.extra_s == 0
    assert cost.groups.idle == 0
    assert cost.groups.span_mean == 1


def test_refilling_in_sync_waits_for_a_second_round() -> None:
    a = QUIET.changed(failure=0.02, incomplete_groups="refill")
    cost = group_cost(a, 16, "sync", 48, steps=6)
    assert cost.groups.useful == 1
    assert cost.groups.replaced > 0
    assert cost.extra_s > 0.3 * cost.prompts.wait_s


@pytest.mark.parametrize("mode", ["colocate_async", "separate_async"])
def test_a_deeper_queue_costs_time_less_and_age_more(mode: str) -> None:
    found = [simulate(QUIET.changed(warmup=w, staleness=99), 16, mode, 48, steps=24) for w in (0, 1, 3)]
    assert all(more.step_s < less.step_s for less, more in pairwise(found))
    assert all(more.span_mean > less.span_mean for less, more in pairwise(found))
    assert found[1].idle > 0


def test_larger_groups_cost_more() -> None:
    """With two prompts instead of eight the price is lower; whole groups never come sooner."""
    prices = [group_cost(QUIET.changed(open=n), 16, "colocate_async", 48, steps=24).extra for n in (1, 7)]
    assert 0 < prices[0] < prices[1]


def test_age_stays_within_the_threshold() -> None:
    found = simulate(QUIET.changed(staleness=2, warmup=2.0), 16, "colocate_async", 48, steps=12)
    assert found.span_p99 <= 2
    assert found.stale > 0


def test_the_seed_decides_all() -> None:
    first, again, other = (simulate(Assumptions(), 16, "separate_async", 16, steps=6, seed=s) for s in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gpus", "8,x"], "--gpus 8,x: whole numbers"),
        (["--gpus", "1"], "--gpus 1: from 2"),
        (["--set", "sigma=1"], "no such assumption"),
        (["--set", "completions=many"], "not a number"),
        (["--set", "failure=1"], "assumptions.failure: 1.0 should be less than 1"),
        (["--set", "failure=-1"], "assumptions.failure: -1.0 should be greater than or equal to 0"),
        (["--set", "length_median=0"], "assumptions.length_median: 0.0 should be greater than 0"),
        (["--set", "completions=0"], "assumptions.completions: 0 should be greater than or equal to 1"),
        (["--set", "rollout_share=0"], "assumptions.rollout_share: 0.0 should be greater than 0"),
        (["--set", "warmup=nan"], "assumptions.warmup: nan should be a finite number"),
        (["--set", "incomplete_groups=keep"], "assumptions.incomplete_groups: 'keep' should be 'drop'"),
        (["--set", "same_intent=0.9"], "at most 1 together"),
        (["--mode", "separate_async", "--gpus", "8", "--fixed-intents", "6"], "multiple of mini_batches=4"),
        (["--gpus", "8", "--steps", "1"], "1 steps: at least 2"),
        (["--seed", "-1"], "--seed at least 0"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_mode_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="mode fast: one of sync"):
        simulate(QUIET, 8, "fast", 8)


def test_the_stored_results_are_what_the_command_prints(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) > 80
    for name in ("results.txt", "weak.svg", "strong.svg"):
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text()
    assert (tmp_path / "results.txt").read_text().endswith(printed)
    assert "prefers-color-scheme: dark" in (tmp_path / "weak.svg").read_text()
