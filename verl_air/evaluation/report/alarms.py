"""What to look at before believing the table. A check looks at the end of a run: ok, look, bad or unknown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from verl_air.evaluation.run_folder import Series
from verl_air.evaluation.text_table import percent

if TYPE_CHECKING:
    from verl_air.evaluation.report.run_summary import RunSummary

Level = Literal["ok", "look", "bad", "unknown"]
LAST_STEPS = 10
"""Training metrics are averaged over this many of the last steps."""


@dataclass(frozen=True)
class Alarm:
    """One check. value: a few characters for a table; text: what it means and what to do, empty if ok."""

    check: str
    level: Level
    value: str
    text: str = ""


@dataclass(frozen=True)
class _Rate:
    """A training metric that should be small. look, bad: from where on it is not."""

    check: str
    metrics: tuple[str, ...]
    look: float
    bad: float
    advice: str


_RATES = (
    _Rate(
        "truncation",
        ("air/truncation_rate", "response_length/clip_ratio"),
        0.05,
        0.20,
        "of responses are cut off by data.max_response_length: they are wrong for their length, not their content.",
    ),
    _Rate(
        "abstention",
        ("air/judge/abstain_rate",),
        0.02,
        0.10,
        "of open responses got no verdict. They are left out of training and of the table; see the judge's log.",
    ),
    _Rate(
        "zero variance",
        ("air/zero_std_rate",),
        0.90,
        0.97,
        "of prompts gave completions of equal reward: no advantage. Harder prompts or more completions a prompt help.",
    ),
)


def alarms_of(run: RunSummary) -> list[Alarm]:
    """All checks of a run, in a fixed order."""
    checks: tuple[Callable[[RunSummary], Alarm], ...] = (_finished, _finite)
    late: tuple[Callable[[RunSummary], Alarm], ...] = (_lost_groups, _anchors, _benign, _hacking)
    return [*(check(run) for check in checks), *(_rate(run, rate) for rate in _RATES), *(check(run) for check in late)]


def end_of(series: Series | None, steps: int = LAST_STEPS) -> float | None:
    """Mean of the last finite values."""
    values = [value for _, value in sorted((series or {}).items()) if math.isfinite(value)][-steps:]
    return sum(values) / len(values) if values else None


def start_of(series: Series | None, steps: int = LAST_STEPS) -> float | None:
    """Mean of the first finite values."""
    return end_of({-step: value for step, value in (series or {}).items()}, steps)


def _finished(run: RunSummary) -> Alarm:
    if run.steps is None:
        return Alarm("finished", "look", "empty", "Nothing is stored yet.")
    if run.planned is None:
        return Alarm("finished", "unknown", f"step {run.steps}")
    value = f"{run.steps} of {run.planned}"
    if run.steps >= run.planned:
        return Alarm("finished", "ok", value)
    return Alarm("finished", "look", value, f"Stopped or still running: step {value}.")


def _finite(run: RunSummary) -> Alarm:
    watched = [name for name in run.curves if name.startswith("actor/") and ("loss" in name or "grad_norm" in name)]
    if not watched:
        return Alarm("finite loss", "unknown", "-")
    broken = sorted({step for name in watched for step, value in run.curves[name].items() if not math.isfinite(value)})
    if not broken:
        return Alarm("finite loss", "ok", "yes")
    return Alarm(
        "finite loss", "bad", f"step {broken[0]}", f"Loss or gradient norm is no number from step {broken[0]}."
    )


def _rate(run: RunSummary, rate: _Rate) -> Alarm:
    value = next((end for name in rate.metrics if (end := end_of(run.curves.get(name))) is not None), None)
    if value is None:
        return Alarm(rate.check, "unknown", "-")
    level = _level(value, rate.look, rate.bad)
    return Alarm(rate.check, level, percent(value), "" if level == "ok" else f"{percent(value)} {rate.advice}")


def _lost_groups(run: RunSummary) -> Alarm:
    dropped, complete = end_of(run.curves.get("air/groups/dropped")), end_of(run.curves.get("air/groups/complete"))
    if dropped is None or complete is None or dropped + complete == 0:
        return Alarm("lost groups", "unknown", "-")
    share = dropped / (dropped + complete)
    level = _level(share, 0.02, 0.10)
    text = f"{percent(share)} of meta-groups lost a rollout and were left out of the step."
    return Alarm("lost groups", level, percent(share), "" if level == "ok" else text)


def _anchors(run: RunSummary) -> Alarm:
    """AIR pulls open rows up to the anchors; anchors that decay pull the target down."""
    fall = _fall(run, "role", "anchor")
    if fall is None:
        first, last = start_of(run.curves.get("air/anchor_acc")), end_of(run.curves.get("air/anchor_acc"))
        if first is None or last is None:
            return Alarm("anchors hold", "unknown", "-")
        fall = first - last, "in training"
    level = _level(fall[0], 0.05, 0.15)
    text = f"Anchor accuracy fell by {100 * fall[0]:.0f} points ({fall[1]}). Try a KL term or a smaller learning rate."
    return Alarm("anchors hold", level, f"{-100 * fall[0]:+.0f} points", "" if level == "ok" else text)


def _benign(run: RunSummary) -> Alarm:
    fall = _fall(run, "harm", "benign")
    if fall is None:
        return Alarm("benign helped", "unknown", "-")
    level = _level(fall[0], 0.05, 0.15)
    text = f"Right answers to benign open prompts fell by {100 * fall[0]:.0f} points ({fall[1]}): over-refusal."
    return Alarm("benign helped", level, f"{-100 * fall[0]:+.0f} points", "" if level == "ok" else text)


def _hacking(run: RunSummary) -> Alarm:
    """The training reward of open rows goes up while their validation accuracy goes down."""
    proxy = run.curves.get("air/open_reward/mean")
    before, after = start_of(proxy, 5), end_of(proxy, 5)
    if before is None or after is None or len(proxy or {}) < 10 or not run.open_accuracy:
        return Alarm("reward hacking", "unknown", "-")
    falls = {}
    for source, series in run.open_accuracy.items():
        values = [value for _, value in sorted(series.items()) if math.isfinite(value)]
        if len(values) > 1:
            falls[source] = values[0] - values[-1]
    if not falls:
        return Alarm("reward hacking", "unknown", "-")
    source, fall = max(falls.items(), key=lambda item: item[1])
    level = _level(fall, 0.05, 0.15) if after > before else "ok"
    value = "no sign" if level == "ok" else f"{-100 * fall:+.0f} points"
    text = (
        f"Open training reward went from {before:.2f} to {after:.2f} while accuracy on open rows of {source} fell by "
        f"{100 * fall:.0f} points: the reward pays for something else."
    )
    return Alarm("reward hacking", level, value, "" if level == "ok" else text)


def _fall(run: RunSummary, kind: str, name: str) -> tuple[float, str] | None:
    """The largest fall of accuracy between the first and the last validation, and where."""
    falls = []
    for before in run.first:
        after = next((section for section in run.last if section.name == before.name), None)
        old, new = before.part(kind, name), after.part(kind, name) if after else None
        if old and new and old.prompts.value is not None and new.prompts.value is not None:
            falls.append((old.prompts.value - new.prompts.value, before.name))
    return max(falls, default=None)


def _level(value: float, look: float, bad: float) -> Level:
    return "bad" if value >= bad else "look" if value >= look else "ok"
