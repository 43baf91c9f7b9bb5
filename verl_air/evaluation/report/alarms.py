"""What to check before believing the table. A check looks at the end of a run: ok, warn, bad or unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from verl_air.evaluation.report.summary import RunSummary
from verl_air.evaluation.run_folder import Series
from verl_air.evaluation.tables import UNSIZED, percent

LAST_STEPS = 10
"""Training metrics are averaged over this many of the last steps."""


@dataclass(frozen=True)
class Alarm:
    """One check. value: a few characters for a table; text: what it means and what to do, empty if ok."""

    check: str
    level: Literal["ok", "warn", "bad", "unknown"]
    value: str = "-"
    text: str = ""


_FALL = (0.05, 0.15)  # of accuracy: warn from, bad from
_AHEAD = (0.20, 0.35)  # share that training calls right, minus accuracy of validation: warn from, bad from
_CONSTANT = 0.002  # share of verdicts that differ from the others, below which they count as constant

# check: (metrics, the first that is there is used; warn from; bad from; what it is the share of, and what to do)
_RATES = {
    "truncation": (
        ("air/truncation_rate", "response_length/clip_ratio"), 0.05, 0.20,
        "of responses are cut off by data.max_response_length: they are wrong for their length, not their content.",
    ),
    "no answer": (
        ("air/no_answer_rate",), 0.20, 0.50,
        "of responses have no answer where format.style expects it: an unfinished thought, or a style that is not the "
        "model's. `verl-air doctor RECIPE` compares the two.",
    ),
    "abstention": (
        ("air/judge/abstain_rate",), 0.02, 0.10,
        "of open responses got no verdict. They are left out of training and of accuracy; see the judge's log.",
    ),
    "zero variance": (
        ("air/zero_std_rate",), 0.90, 0.97,
        "of prompts gave completions of equal reward: no advantage. Harder prompts or more completions help.",
    ),
}  # fmt: skip


def alarms_of(run: RunSummary) -> list[Alarm]:
    """All checks of a run, in a fixed order."""
    alarms = [_finished(run), _finite(run)]
    for check, (metrics, warn, bad, advice) in _RATES.items():
        rate = next((end for name in metrics if (end := end_of(run.curves.get(name))) is not None), None)
        alarms.append(_limit(check, rate, warn, bad, percent(rate), f"{percent(rate)} {advice}"))
    lost, complete = end_of(run.curves.get("air/groups/dropped")), end_of(run.curves.get("air/groups/complete"))
    share = lost / (lost + complete) if lost is not None and complete is not None and lost + complete else None
    text = f"{percent(share)} of meta-groups lost a rollout and were left out of the step."
    alarms.append(_limit("lost groups", share, 0.02, 0.10, percent(share), text))
    ours = [_constant(run), _incomplete(run), _worse_anchors(run), _anchors(run), _benign(run), _hacking(run)]
    return [*alarms, *ours]


def end_of(series: Series | None, steps: int = LAST_STEPS) -> float | None:
    """Mean of the last finite values."""
    values = [value for _, value in sorted((series or {}).items()) if math.isfinite(value)][-steps:]
    return sum(values) / len(values) if values else None


def start_of(series: Series | None, steps: int = LAST_STEPS) -> float | None:
    """Mean of the first finite values."""
    return end_of({-step: value for step, value in (series or {}).items()}, steps)


def _limit(check: str, value: float | None, warn: float, bad: float, shown: str, text: str) -> Alarm:
    if value is None:
        return Alarm(check, "unknown")
    return Alarm(check, "ok", shown) if value < warn else Alarm(check, "bad" if value >= bad else "warn", shown, text)


def _fall_alarm(check: str, fall: float | None, what: str, then: str) -> Alarm:
    """Of a fall in accuracy, in points; it is written between ``what`` fell and what follows."""
    points = 100 * (fall or 0.0)
    return _limit(check, fall, *_FALL, f"{-points:+.0f} points", f"{what} fell by {points:.0f} points{then}")


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


def _constant(run: RunSummary) -> Alarm:
    """The judge says the same of every open response. Only at the end may that have been learned."""
    series = run.curves.get("air/open_acc")
    first, last = start_of(series), end_of(series)
    if first is None or last is None:
        return Alarm("constant verdicts", "unknown")
    constant = [min(share, 1 - share) < _CONSTANT for share in (first, last)]
    if not constant[1]:
        return Alarm("constant verdicts", "ok", f"{percent(last)} right")
    word = "right" if last > 0.5 else "wrong"
    start = (
        "from the start" if constant[0] and abs(first - last) < 0.5 else f"at the end, and {percent(first)} at first"
    )
    text = (
        f"The reward of open rows called every response {word}, {start}. With constant verdicts nothing is learned: "
        "`verl-air check --judge` shows whether it separates right from wrong, and the samples whether it was right to."
    )
    learned = word == "right" and "at first" in start
    return Alarm("constant verdicts", "warn" if learned else "bad", f"all {word}", text)


def _incomplete(run: RunSummary) -> Alarm:
    """Intents of the last validation without a verdict on every row, where the largest share of them is."""
    shares = [(section.whole.incomplete / section.whole.intents, section) for section in run.last]
    share, section = max(shares, key=lambda item: item[0], default=(None, None))
    if share is None or section is None or (share == 0 and not all(section.sized for _, section in shares)):
        return Alarm("incomplete groups", "unknown", text=UNSIZED if section else "")
    text = (
        f"{section.whole.incomplete} of {section.whole.intents} intents of {section.name} lack a row or a verdict at "
        "the last validation, and count as not right. See the judge's log, and failed sessions in the run's."
    )
    shown = f"{section.whole.incomplete} of {section.whole.intents}"
    return _limit("incomplete groups", share, 0.02, 0.10, shown, text)


def _worse_anchors(run: RunSummary) -> Alarm:
    """Anchors that earn less than open variants, in the first steps or the last, of the worst domain."""
    curves = [curve for name, curve in run.curves.items() if re.fullmatch(r"air/gap/(.+/)?anchors_worse", name)]
    ends = [(end, when) for curve in curves for end, when in ((start_of(curve), "first"), (end_of(curve), "last"))]
    share, when = max(((end, when) for end, when in ends if end is not None), default=(None, ""))
    text = (
        f"Anchors earned less than open variants in {percent(share)} of the {when} steps: they are no reference there. "
        "air.gap=signed then pushes open answers down. Look at air/anchor_acc and air/anchor_truncation_rate."
    )
    return _limit("worse anchors", share, 0.30, 0.60, percent(share), text)


def _anchors(run: RunSummary) -> Alarm:
    """AIR pulls open rows up to the anchors; anchors that decay pull the target down."""
    fall, where = _largest_fall(run, "role", "anchor")
    if fall is None:
        first, last = start_of(run.curves.get("air/anchor_acc")), end_of(run.curves.get("air/anchor_acc"))
        fall, where = None if first is None or last is None else first - last, "in training"
    return _fall_alarm(
        "anchors hold", fall, "Anchor accuracy", f" ({where}). Try a KL term or a smaller learning rate."
    )


def _benign(run: RunSummary) -> Alarm:
    fall, where = _largest_fall(run, "harm", "benign")
    return _fall_alarm("benign helped", fall, "Right answers to benign open prompts", f" ({where}): over-refusal.")


def _hacking(run: RunSummary) -> Alarm:
    accuracy = {section.name: run.accuracy(section.name, "role", "open") for section in run.last}
    return hacking_alarm(run.curves.get("air/open_reward/mean", {}), run.curves.get("air/open_acc", {}), accuracy)


def hacking_alarm(reward: Series, verdicts: Series, accuracy: Mapping[str, Series]) -> Alarm:
    """Open rows: the training reward rises while accuracy falls, or training passes far more than validation does.

    Args:
        reward: mean training reward by step.
        verdicts: share that the training reward calls right.
        accuracy: of validation, by domain and split.
    """
    before, after, passed = start_of(reward, 5), end_of(reward, 5), end_of(verdicts, 5)
    curves = {source: list(series.values()) for source, series in accuracy.items() if series}
    if before is None or after is None or len(reward) < 10 or not curves:
        return Alarm("reward hacking", "unknown")
    fall, where = max((values[0] - values[-1], source) for source, values in curves.items())
    if after > before and fall >= _FALL[0]:
        text = f"Open training reward went from {before:.2f} to {after:.2f} while accuracy on open rows of {where}"
        return _fall_alarm("reward hacking", fall, text, ": the reward pays for something else.")
    best, where = max((values[-1], source) for source, values in curves.items())
    if passed is None or passed - best < _AHEAD[0]:
        return Alarm("reward hacking", "ok", "no sign")
    text = (
        f"Training calls {percent(passed)} of open responses right, validation at most {percent(best)} ({where}): the "
        "reward pays for something else, or what is learned does not reach held-out intents. Compare the samples."
    )
    return _limit("reward hacking", passed - best, *_AHEAD, f"{100 * (passed - best):+.0f} points", text)


def _largest_fall(run: RunSummary, kind: str, name: str) -> tuple[float | None, str]:
    """The largest fall of accuracy between the first and the last validation, and where."""
    falls = []
    for source in (section.name for section in run.last):
        if len(values := list(run.accuracy(source, kind, name).values())) > 1:
            falls.append((values[0] - values[-1], source))
    return max(falls, default=(None, ""))
