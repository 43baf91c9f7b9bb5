"""What to check before believing the table. A check looks at the end of a run: ok, warn, bad or unknown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from verl_air.evaluation.report.summary import RunSummary
from verl_air.evaluation.run_folder import Series
from verl_air.evaluation.tables import percent

LAST_STEPS = 10
"""Training metrics are averaged over this many of the last steps."""


@dataclass(frozen=True)
class Alarm:
    """One check. value: a few characters for a table; text: what it means and what to do, empty if ok."""

    check: str
    level: Literal["ok", "warn", "bad", "unknown"]
    value: str = "-"
    text: str = ""


@dataclass(frozen=True)
class _Limit:
    """A number that should be small: from where on it is a warning, and from where on bad."""

    check: str
    warn: float
    bad: float

    def alarm(self, value: float | None, shown: str, text: str) -> Alarm:
        if value is None:
            return Alarm(self.check, "unknown")
        if value < self.warn:
            return Alarm(self.check, "ok", shown)
        return Alarm(self.check, "bad" if value >= self.bad else "warn", shown, text)


_RATES = {
    _Limit("truncation", 0.05, 0.20): (
        ("air/truncation_rate", "response_length/clip_ratio"),
        "of responses are cut off by data.max_response_length: they are wrong for their length, not their content.",
    ),
    _Limit("abstention", 0.02, 0.10): (
        ("air/judge/abstain_rate",),
        "of open responses got no verdict. They are left out of training and of the table; see the judge's log.",
    ),
    _Limit("zero variance", 0.90, 0.97): (
        ("air/zero_std_rate",),
        "of prompts gave completions of equal reward: no advantage. Harder prompts or more completions help.",
    ),
}
_LOST_GROUPS = _Limit("lost groups", 0.02, 0.10)
_ANCHORS = _Limit("anchors hold", 0.05, 0.15)
_BENIGN = _Limit("benign helped", 0.05, 0.15)
_HACKING = _Limit("reward hacking", 0.05, 0.15)


def alarms_of(run: RunSummary) -> list[Alarm]:
    """All checks of a run, in a fixed order."""
    rates = [_rate(run, limit, *rate) for limit, rate in _RATES.items()]
    others: tuple[Callable[[RunSummary], Alarm], ...] = (_lost_groups, _anchors, _benign, _hacking)
    return [_finished(run), _finite(run), *rates, *(check(run) for check in others)]


def end_of(series: Series | None, steps: int = LAST_STEPS) -> float | None:
    """Mean of the last finite values."""
    values = [value for _, value in sorted((series or {}).items()) if math.isfinite(value)][-steps:]
    return sum(values) / len(values) if values else None


def start_of(series: Series | None, steps: int = LAST_STEPS) -> float | None:
    """Mean of the first finite values."""
    return end_of({-step: value for step, value in (series or {}).items()}, steps)


def _finished(run: RunSummary) -> Alarm:
    if run.steps is None:
        return Alarm("finished", "warn", "empty", "Nothing is stored yet.")
    if run.planned is None:
        return Alarm("finished", "unknown", f"step {run.steps}")
    value = f"{run.steps} of {run.planned}"
    if run.steps >= run.planned:
        return Alarm("finished", "ok", value)
    return Alarm("finished", "warn", value, f"Stopped or still running: step {value}.")


def _finite(run: RunSummary) -> Alarm:
    watched = [name for name in run.curves if name.startswith("actor/") and ("loss" in name or "grad_norm" in name)]
    broken = [step for name in watched for step, value in run.curves[name].items() if not math.isfinite(value)]
    if not broken:
        return Alarm("finite loss", "ok", "yes") if watched else Alarm("finite loss", "unknown")
    step = min(broken)
    return Alarm("finite loss", "bad", f"step {step}", f"Loss or gradient norm is not a number from step {step}.")


def _rate(run: RunSummary, limit: _Limit, metrics: tuple[str, ...], advice: str) -> Alarm:
    value = next((end for name in metrics if (end := end_of(run.curves.get(name))) is not None), None)
    return limit.alarm(value, percent(value), f"{percent(value)} {advice}")


def _lost_groups(run: RunSummary) -> Alarm:
    dropped, complete = end_of(run.curves.get("air/groups/dropped")), end_of(run.curves.get("air/groups/complete"))
    known = dropped is not None and complete is not None and dropped + complete > 0
    share = dropped / (dropped + complete) if known and dropped is not None and complete is not None else None
    text = f"{percent(share)} of meta-groups lost a rollout and were left out of the step."
    return _LOST_GROUPS.alarm(share, percent(share), text)


def _anchors(run: RunSummary) -> Alarm:
    """AIR pulls open rows up to the anchors; anchors that decay pull the target down."""
    fall, where = _fall(run, "role", "anchor")
    if fall is None:
        first, last = start_of(run.curves.get("air/anchor_acc")), end_of(run.curves.get("air/anchor_acc"))
        fall, where = None if first is None or last is None else first - last, "in training"
    text = f"Anchor accuracy fell by {_points(fall)} ({where}). Try a KL term or a smaller learning rate."
    return _ANCHORS.alarm(fall, _change(fall), text)


def _benign(run: RunSummary) -> Alarm:
    fall, where = _fall(run, "harm", "benign")
    text = f"Right answers to benign open prompts fell by {_points(fall)} ({where}): over-refusal."
    return _BENIGN.alarm(fall, _change(fall), text)


def _hacking(run: RunSummary) -> Alarm:
    """The training reward of open rows rises while their validation accuracy falls."""
    proxy = run.curves.get("air/open_reward/mean", {})
    before, after = start_of(proxy, 5), end_of(proxy, 5)
    falls = []
    for source in (section.name for section in run.last):
        if len(values := list(run.open_accuracy(source).values())) > 1:
            falls.append((values[0] - values[-1], source))
    if before is None or after is None or len(proxy) < 10 or not falls:
        return Alarm("reward hacking", "unknown")
    fall, source = max(falls)
    if after <= before or fall < _HACKING.warn:
        return Alarm("reward hacking", "ok", "no sign")
    text = (
        f"Open training reward went from {before:.2f} to {after:.2f} while accuracy on open rows of {source} fell by "
        f"{_points(fall)}: the reward pays for something else."
    )
    return _HACKING.alarm(fall, _change(fall), text)


def _fall(run: RunSummary, kind: str, name: str) -> tuple[float | None, str]:
    """The largest fall of accuracy between the first and the last validation, and where."""
    falls = []
    for section in run.last:
        lines = [found.line(kind, name) for found in run.sections(section.name).values()]
        values = [line.prompts.value for line in lines if line and line.prompts.value is not None]
        if len(values) > 1:
            falls.append((values[0] - values[-1], section.name))
    return max(falls, default=(None, ""))


def _points(fall: float | None) -> str:
    return f"{100 * (fall or 0.0):.0f} points"


def _change(fall: float | None) -> str:
    return f"{-100 * (fall or 0.0):+.0f} points"
