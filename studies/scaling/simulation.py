"""Step after step of one run: prompts are handed out, finish, are judged, and leave as prompts or whole meta-groups.

A unit is what the replay buffer takes: a prompt (verl's own) or a meta-group (ours). A failed unit that is replaced
starts again when its last rollout is terminal. A unit that is too stale at the start of a step is replaced there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studies.scaling.assumptions import Assumptions
from verl_air.errors import ConfigError

MODES = ("sync", "colocate_async", "separate_async")
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def draw_lengths(a: Assumptions, rng: np.random.Generator, intents: int) -> Floats:
    """Response tokens [intents, prompts, completions]: log-normal, alike within an intent and a prompt, cut."""
    shape = (intents, a.group_size, a.completions)
    z = np.sqrt(a.same_intent) * rng.standard_normal((intents, 1, 1))
    z = z + np.sqrt(a.same_prompt) * rng.standard_normal((*shape[:2], 1))
    z = z + np.sqrt(max(0.0, 1 - a.same_intent - a.same_prompt)) * rng.standard_normal(shape)
    return np.clip(a.length_median * np.exp(a.length_sigma * z), 1, a.length_max)


@dataclass(frozen=True)
class Clock:
    """Seconds as a function of tokens that each running sequence has made; all run at the same rate.

    With n sequences on g GPUs a token takes 1/single + n/(g peak) seconds: engines are taken to be evenly loaded.
    """

    tokens: Floats
    seconds: Floats

    @classmethod
    def of(cls, start: Floats, end: Floats, gpus: float, a: Assumptions) -> Clock:
        """Sequences run from ``start`` to ``end`` (tokens from now; below 0 is now)."""
        at = np.concatenate([np.maximum(start, 0), np.maximum(end, 0)])
        change = np.concatenate([np.ones(len(start)), -np.ones(len(end))])
        order = np.argsort(at, kind="stable")
        tokens = at[order]
        running = np.cumsum(change[order])[:-1]
        pace = 1 / a.sequence_tokens_per_s + running / (gpus * a.peak_tokens_per_s)
        seconds = np.cumsum(np.diff(tokens) * pace)
        first = tokens[0] / a.sequence_tokens_per_s  # nothing runs before the first start
        return cls(np.concatenate([[0.0], tokens]), np.concatenate([[0.0, first], first + seconds]))

    def when(self, tokens: Floats) -> Floats:
        """Seconds from now."""
        return np.interp(tokens, self.tokens, self.seconds)

    def made(self, seconds: float) -> float:
        """Tokens made by a running sequence in that time."""
        return float(np.interp(seconds, self.seconds, self.tokens))


def judged(arrive: Floats, rate: float, free_at: float) -> Floats:
    """When requests leave a first-come-first-served judge pool of ``rate`` a second that is busy until ``free_at``."""
    if not len(arrive):
        return arrive
    order = np.argsort(arrive, kind="stable")
    place = np.arange(len(arrive)) / rate
    begin = np.maximum.accumulate(np.maximum(arrive[order], free_at) - place) + place
    done = np.empty_like(arrive)
    done[order] = begin + 1 / rate
    return done


@dataclass(frozen=True)
class Outcome:
    """Means over the steps after the warm-up. useful: share of the batch that is trained on, with all its terms."""

    step_s: float
    wait_s: float
    train_s: float
    trajectories: int
    useful: float
    with_air: float
    idle: float
    span_mean: float
    span_p99: float
    replaced: float
    stale: float

    @property
    def s_per_useful(self) -> float:
        """Seconds per trajectory that is trained on."""
        return self.step_s / (self.trajectories * self.useful) if self.useful else float("inf")


class _Pool:
    """Units in flight or ready. Arrays are [units, trajectories]; done is NaN until a rollout has been judged."""

    def __init__(self, a: Assumptions, whole: bool, replace: bool, seed: int) -> None:
        self.a, self.replace = a, replace
        # apart, so that both ways of taking see the same lengths
        self.rng, self.luck, self.again = (np.random.default_rng([seed, i]) for i in range(3))
        width = a.completions * (a.group_size if whole else 1)
        self.start, self.end, self.done = (np.empty((0, width)) for _ in range(3))
        self.opens = np.empty((0, width), bool)
        self.step = np.empty(0, int)
        self.spent = np.empty((0, 2))  # (start, end) of rollouts whose unit failed
        self.failed_units = self.handed_out = 0

    def add(self, intents: int, step: int) -> None:
        """Hand out that many whole intents, now."""
        a, size = self.a, self.start.shape[1]
        length = draw_lengths(a, self.rng, intents).reshape(-1, size)
        is_open = np.repeat(np.arange(a.group_size) >= a.anchors, a.completions)
        start = np.zeros_like(length)
        self.handed_out += len(length)
        again = self._fails(len(length))
        self.failed_units += int(again.sum())
        while self.replace and again.any():
            at = (start[again] + length[again]).max(axis=1, keepdims=True)
            lost = np.stack([start[again], start[again] + length[again]], axis=-1).reshape(-1, 2)
            self.spent = np.concatenate([self.spent, lost])
            fresh = draw_lengths(a, self.again, -(-int(again.sum()) * size // (a.group_size * a.completions)))
            start[again] = at
            length[again] = fresh.reshape(-1, size)[: int(again.sum())]
            again[again] = self._fails(int(again.sum()))
        self.start = np.concatenate([self.start, start])
        self.end = np.concatenate([self.end, start + length])
        self.done = np.concatenate([self.done, np.full_like(length, np.nan)])
        self.opens = np.concatenate([self.opens, np.tile(is_open, intents).reshape(-1, size)])
        self.step = np.concatenate([self.step, np.full(len(length), step)])

    def _fails(self, units: int) -> Mask:
        chance = 1 - (1 - self.a.failure) ** self.start.shape[1]
        return np.asarray(self.luck.random(units) < chance)

    def ends(self, now: float, gpus: float, rate: float, judge_free: float) -> tuple[Clock, Floats, Floats]:
        """The clock from now, and when each rollout ends and is judged if nothing more is handed out."""
        left = np.isnan(self.done)
        clock = Clock.of(
            np.concatenate([self.start[left], self.spent[:, 0]]),
            np.concatenate([self.end[left], self.spent[:, 1]]),
            gpus,
            self.a,
        )
        ended = np.where(left, now + clock.when(self.end), -np.inf)
        ready = np.where(left, ended, self.done)
        asks = left & self.opens
        ready[asks] = judged(ended[asks], rate, judge_free) + self.a.judge_latency_s
        return clock, ended, ready

    def advance(self, made: float, ended: Floats, ready: Floats, now: float) -> None:
        """Advance rollouts by ``made`` tokens, up to the time ``now``."""
        over = np.isnan(self.done) & (ended <= now)
        self.done[over] = ready[over]
        self.start, self.end, self.spent = self.start - made, self.end - made, self.spent - made
        self.spent = self.spent[self.spent[:, 1] > 0]

    def forget_stale(self, step: int) -> int:
        """Forget the units that are too old for this step; returns how many."""
        stale = step - self.step + 1 > self.a.staleness
        self.keep(~stale)
        return int(stale.sum())

    def keep(self, mask: Mask) -> None:
        """Forget the other units."""
        self.start, self.end, self.done = self.start[mask], self.end[mask], self.done[mask]
        self.opens, self.step = self.opens[mask], self.step[mask]


@dataclass(frozen=True)
class _Cluster:
    """What ``gpus`` GPUs come to in a mode. roll and train are GPUs, judge requests/s, sync seconds a weight sync."""

    roll: float
    train: float
    judge: float
    sync: float

    @classmethod
    def of(cls, a: Assumptions, gpus: int, mode: str) -> _Cluster:
        separate = mode == "separate_async"
        roll = max(1.0, gpus * a.rollout_share) if separate else float(gpus)
        return cls(
            roll=roll,
            train=gpus - roll if separate else float(gpus),
            judge=a.judge_per_s * a.judge_gpus_per_64 * gpus / 64,
            sync=a.sync_base_s + a.sync_per_doubling_s * float(np.log2(gpus)),
        )


@dataclass
class _Step:
    """The trainer's part of one step. sampled: when its last piece was taken from the buffer; now: when it ends."""

    taken: Mask
    sampled: float
    now: float
    wait: float = 0.0
    train: float = 0.0


def _train(a: Assumptions, pool: _Pool, ready: Floats, need: int, pieces: int, gpus: float, now: float) -> _Step:
    """``pieces`` times: take the oldest ``need`` units as soon as so many are there, and train on them."""
    at = ready.max(axis=1)
    step = _Step(np.zeros(len(at), bool), now, now)
    for _ in range(pieces):
        step.sampled = max(step.now, float(np.partition(at[~step.taken], need - 1)[need - 1]))
        step.wait += step.sampled - step.now
        there = np.flatnonzero(~step.taken & (at <= step.sampled))
        chosen = there[np.argsort(pool.step[there], kind="stable")][:need]
        step.taken[chosen] = True
        tokens = float((pool.end - pool.start)[chosen].sum()) + a.prompt_tokens * need * ready.shape[1]
        seconds = a.train_fixed_s / pieces + tokens / (a.train_tokens_per_s * gpus)
        step.train += seconds
        step.now = step.sampled + seconds
    return step


def simulate(
    a: Assumptions, gpus: int, mode: str, intents: int, *, whole: bool = True, steps: int = 16, seed: int = 0
) -> Outcome:
    """Run ``steps`` steps of ``intents`` intents each, and average the second half.

    whole: take whole meta-groups (ours), else whichever prompts are done (verl's own).

    Raises:
        ConfigError: a mode that there is not, or sizes that do not fit.
    """
    _check(a, gpus, mode, intents, steps)
    sync, separate = mode == "sync", mode == "separate_async"
    refill = not sync or (whole and a.incomplete_groups == "refill")
    pool, cluster = _Pool(a, whole, refill, seed), _Cluster.of(a, gpus, mode)
    per_intent = 1 if whole else a.group_size
    pieces = a.mini_batches if separate else 1
    need = intents * per_intent // pieces
    batch = intents * a.group_size * a.completions
    after_s = cluster.sync + batch * a.driver_us * 1e-6 + pieces * a.poll_s / 2
    pool.add(0 if sync else int(a.warmup * intents), 1)
    now = judge_free = 0.0
    rows: list[tuple[float, ...]] = []
    spans = []
    for number in range(1, steps + 1):
        begun = now
        lost = 0 if sync else pool.forget_stale(number)
        pool.add(intents + -(-lost // per_intent), number)
        clock, ended, ready = pool.ends(now, cluster.roll, cluster.judge, judge_free)
        step = _train(a, pool, ready, need, pieces, cluster.train, now)
        rolled_until = step.now if separate else step.sampled  # colocated engines sleep while the trainer works
        finished = ready <= step.sampled
        idle = float(finished[~step.taken].sum() / finished.sum())
        asked = np.isnan(pool.done) & pool.opens & (ended <= rolled_until)
        judge_free = max(judge_free, float((ready[asked] - a.judge_latency_s).max(initial=0.0)))
        pool.advance(clock.made(rolled_until - begun), ended, ready, rolled_until)
        now = step.now + after_s
        if number > steps // 2:
            spans.append(number - pool.step[step.taken] + 1)
            rows.append((now - begun, step.wait, step.train, idle, lost))
        pool.keep(~step.taken)
    step_s, wait_s, train_s, idle_share, stale_units = np.mean(rows, axis=0)
    useful, with_air = _kept(a, sync, whole)
    span = np.concatenate(spans)
    return Outcome(
        float(step_s), float(wait_s), float(train_s), batch, useful, with_air, float(idle_share), float(span.mean()),
        float(np.quantile(span, 0.99)), pool.failed_units / pool.handed_out if refill else 0.0,
        float(stale_units) / (need * pieces),
    )  # fmt: skip


def _kept(a: Assumptions, sync: bool, whole: bool) -> tuple[float, float]:
    """Shares of the batch that are trained on, and trained on with the auxiliary term (expected values)."""
    if not sync or (whole and a.incomplete_groups == "refill"):
        return 1.0, float(whole)
    if whole and a.incomplete_groups == "drop":
        return a.whole_group_chance, a.whole_group_chance
    return 1 - a.failure, a.whole_group_chance if whole else 0.0


def _check(a: Assumptions, gpus: int, mode: str, intents: int, steps: int) -> None:
    if mode not in MODES:
        raise ConfigError(f"mode {mode}: one of {', '.join(MODES)}")
    if gpus < 2:
        raise ConfigError(f"{gpus} GPUs: at least 2")
    if intents < 1 or (mode == "separate_async" and intents % a.mini_batches):
        raise ConfigError(f"{intents} intents a step: at least 1, and a multiple of mini_batches={a.mini_batches}")
    if steps < 2:
        raise ConfigError(f"{steps} steps: at least 2")
    if mode == "separate_async" and gpus - max(1.0, gpus * a.rollout_share) < 1:
        raise ConfigError(f"rollout_share={a.rollout_share:g} leaves no GPU of {gpus} to train on")
