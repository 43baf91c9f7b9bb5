"""What whole meta-groups cost, at which size and setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from studies.scaling.assumptions import Assumptions
from studies.scaling.simulation import MODES, Outcome, simulate

SIZES = (8, 64, 512, 4096)
_ASYNC, _ALL, _SYNC = MODES[1:], MODES, MODES[:1]
SETTINGS: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("as assumed", _ALL, {}),
    ("warmup 0.5", _ASYNC, {"warmup": 0.5}),
    ("warmup 2", _ASYNC, {"warmup": 2.0}),
    ("warmup 3", _ASYNC, {"warmup": 3.0}),
    ("warmup 4", _ASYNC, {"warmup": 4.0}),
    ("warmup 6, staleness 16", _ASYNC, {"warmup": 6.0, "staleness": 16}),
    ("warmup 3, max length 4096", _ASYNC, {"warmup": 3.0, "length_max": 4096}),
    ("max length 4096", _ALL, {"length_max": 4096}),
    ("groups of 1:1", _ALL, {"open": 1}),
    ("groups of 2:6", _ALL, {"anchors": 2, "open": 6}),
    ("K 8", _ALL, {"completions": 8}),
    ("an eighth of the judges", _ALL, {"judge_gpus_per_64": 2.0}),
    ("no intra-intent correlation", _ALL, {"same_intent": 0.0}),
    ("staleness 2", _ASYNC, {"staleness": 2}),
    ("no failures", _ALL, {"failure": 0.0}),
    ("no_air", _SYNC, {"incomplete_groups": "no_air"}),
    ("refill", _SYNC, {"incomplete_groups": "refill"}),
    ("failures 1 %", _ALL, {"failure": 0.01}),
    ("failures 1 %, no_air", _SYNC, {"failure": 0.01, "incomplete_groups": "no_air"}),
    ("failures 1 %, refill", _SYNC, {"failure": 0.01, "incomplete_groups": "refill"}),
    ("failures 1 %, warmup 4", _ASYNC, {"failure": 0.01, "warmup": 4.0}),
)


@dataclass(frozen=True)
class Cost:
    """One size and mode with prompts as verl takes them, and with whole meta-groups; same seed, same lengths."""

    mode: str
    gpus: int
    intents: int
    setting: str
    prompts: Outcome
    groups: Outcome

    @property
    def extra(self) -> float:
        """More time per trajectory that is trained on, as a share (0.05: 5 %)."""
        return self.groups.s_per_useful / self.prompts.s_per_useful - 1

    @property
    def extra_s(self) -> float:
        """More seconds per step."""
        return self.groups.step_s - self.prompts.step_s


def group_cost(
    a: Assumptions, gpus: int, mode: str, intents: int, *, setting: str = "", steps: int | None = None, seed: int = 0
) -> Cost:
    """Both ways of taking, side by side. Without ``steps``, small batches run for more steps, as they scatter more."""
    steps = min(32, max(8, 12288 // intents)) if steps is None else steps
    prompts = simulate(a, gpus, mode, intents, whole=False, steps=steps, seed=seed)
    groups = simulate(a, gpus, mode, intents, whole=True, steps=steps, seed=seed)
    return Cost(mode, gpus, intents, setting, prompts, groups)


def scaling(
    a: Assumptions, sizes: Iterable[int], modes: Sequence[str] = MODES, *, per_gpu: int = 3, fixed: int | None = None,
    steps: int | None = None, seed: int = 0,
) -> list[Cost]:  # fmt: skip
    """Weak scaling (``per_gpu`` intents per GPU), or strong (``fixed`` intents at every size)."""
    return [group_cost(a, g, mode, fixed or per_gpu * g, steps=steps, seed=seed) for mode in modes for g in sizes]


def remedies(
    a: Assumptions,
    gpus: int,
    modes: Sequence[str] = MODES,
    *,
    per_gpu: int = 3,
    steps: int | None = None,
    seed: int = 0,
) -> list[Cost]:
    """One setting after the other, changed alone."""
    return [
        group_cost(a.changed(**changes), gpus, mode, per_gpu * gpus, setting=name, steps=steps, seed=seed)
        for mode in modes
        for name, where, changes in SETTINGS
        if mode in where
    ]


def conclusions(weak: Sequence[Cost], strong: Sequence[Cost], settings: Sequence[Cost]) -> list[str]:
    """Where whole meta-groups cost more than 1 % and 5 %, and what avoids it, as sentences."""
    lines = []
    for name, costs in (("weak", weak), ("strong", strong)):
        for mode in dict.fromkeys(c.mode for c in costs):
            own = [c for c in costs if c.mode == mode]
            where = "; ".join(f"over {share:.0%}: {_at(own, share)}" for share in (0.01, 0.05))
            worst = max(own, key=lambda c: c.extra)
            lines.append(f"{name} scaling, {mode}: {where} (most {worst.extra:+.1%}, at {worst.gpus} GPUs)")
    for mode in dict.fromkeys(c.mode for c in settings):
        own = [c for c in settings if c.mode == mode]
        base = own[0].extra
        for word, low, high in (("up to 1 %", -1.0, 0.01), ("1 to 5 %", 0.01, 0.05), ("over 5 %", 0.05, float("inf"))):
            named = [f"{c.setting} ({c.extra:+.1%})" for c in own[1:] if low < c.extra <= high]
            lines.append(f"{mode} on {own[0].gpus} GPUs ({base:+.1%} as assumed), {word}: {', '.join(named) or 'none'}")
    by_mode = {c.mode: c.groups.s_per_useful for c in settings if c.setting == "as assumed"}
    lines += [
        f"{mode} with whole meta-groups takes {by_mode[mode] / by_mode['sync']:.2f} of the time of sync per trajectory"
        for mode in by_mode
        if mode != "sync" and "sync" in by_mode
    ]
    return lines


def _at(costs: Sequence[Cost], share: float) -> str:
    sizes = [str(c.gpus) for c in costs if c.extra > share]
    return "at no size" if not sizes else "at every size" if len(sizes) == len(costs) else f"{', '.join(sizes)} GPUs"
