"""The runs of a plan, one after the other; stopped at will and resumed where it was.

A finished run is recognised by its record, which holds the hash of its settings, and is not repeated. One that crashed
is tried again, from its start, a few times; the attempts are counted and are in the results.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any

from omegaconf import OmegaConf

from studies.experiment.plan import ExperimentPlan, Study
from studies.experiment.runs import Run, RunRecord, curves_in, read_records, recipe_text, refuse_other_settings
from verl_air.compose import read_recipe
from verl_air.errors import ConfigError, DataError
from verl_air.evaluation import area_under
from verl_air.playground.build import PlaygroundConfig, build_playground
from verl_air.playground.measure import shortfalls
from verl_air.playground.quickstart import train

ATTEMPTS = 3
RECORDS = "records.jsonl"

Launch = Callable[[Path, str, Sequence[str]], int]
"""Starts ``main_ppo`` in a folder with a recipe and overrides; returns its exit status."""

Resolve = Callable[[str, Sequence[str]], Any]
"""The recipe with overrides, composed and resolved, as a mapping."""


def resolve(recipe: str, overrides: Sequence[str]) -> Any:
    """What ``main_ppo`` will run; see :func:`~verl_air.compose.read_recipe`."""
    return OmegaConf.to_container(read_recipe(recipe, overrides), resolve=True)


@dataclass
class Experiment:
    """A plan, and the folder its runs are in.

    The records stored next to the plan count as well, so an experiment can be resumed in another clone.
    """

    plan: ExperimentPlan
    out: Path
    recipes: Path = Path("recipes")
    launch: Launch = train
    resolve: Resolve = resolve
    say: Callable[[str], None] = print
    playground: PlaygroundConfig = field(default_factory=PlaygroundConfig)

    def __post_init__(self) -> None:
        self.playground = replace(self.playground, setting=self.plan.setting)

    def runs_of(self, study: Study) -> list[Run]:
        """The runs of a study: all methods with the first seed, then with the next.

        So a study that is stopped early has whole pairs.

        Raises:
            ConfigError: a method waits for a choice that cannot be made yet.
        """
        return [self.run_of(method, seed) for seed in study.seeds for method in study.methods]

    def run_of(self, method: str, seed: int) -> Run:
        """A method with a seed.

        Raises:
            ConfigError: see :meth:`runs_of`.
        """
        settings = self.plan.settings(method)
        if tuning := self.plan.tuned_by(method):
            chosen = self.handed_over(tuning)
            refuse_contradictions(method, settings, chosen)
            settings += chosen
        recipe, world = self._meaning
        meaning = f"{recipe}\n{json.dumps({**world, 'seed': seed}, sort_keys=True)}"
        repeats = self.plan.repeats(method) is not None
        return Run.of(method, seed, settings, self.plan.recipe, meaning, self.out / "runs", repeats=repeats)

    def record(self, method: str, seed: int) -> RunRecord | None:
        """What a finished run left, here or next to the plan; None if it has to be run, or does not count.

        Raises:
            ConfigError: see :meth:`runs_of`.
        """
        found = self.published.get((method, seed))
        if not self.plan.archived:
            run = self.run_of(method, seed)
            found = run.record or (found if found and found["hash"] == run.hash else None)
        return None if found is None or "withdrawn" in found else found

    def records(self, study: Study) -> dict[str, dict[int, RunRecord]]:
        """What is finished of a study: method, then seed."""
        found: dict[str, dict[int, RunRecord]] = {}
        for method in study.methods:
            for seed in study.seeds:
                try:
                    record = self.record(method, seed)
                except ConfigError:  # its settings are not chosen yet, or contradict each other
                    continue
                if record is not None:
                    found.setdefault(method, {})[seed] = record
        return found

    @cached_property
    def published(self) -> dict[tuple[str, int], RunRecord]:
        """The records next to the plan."""
        return read_records(self.plan.path.parent / RECORDS)

    def withdrawn(self, study: Study) -> dict[str, str]:
        """Methods of a study whose published records do not count, with the reason."""
        reasons = {r["method"]: r["withdrawn"] for r in self.published.values() if "withdrawn" in r}
        return {method: reasons[method] for method in study.methods if method in reasons}

    def scores(self, study: Study) -> dict[str, list[float]]:
        """What a study with ``choose`` compares: by method, one value per seed.

        Raises:
            ConfigError: its runs are not all finished.
        """
        choice, steps = study.choose, self.plan.measure.steps
        assert choice is not None
        found: dict[str, list[float]] = {}
        for method in study.methods:
            for seed in study.seeds:
                record = self.record(method, seed)
                if record is None:
                    raise ConfigError(
                        f"study {study.name} has to be finished first: it chooses settings for others, and "
                        f"{method} with seed {seed} is missing"
                    )
                curve = curves_in(record)[choice.source][choice.of]
                value = curve[steps[-1]] if choice.by == "end" else area_under(curve, steps)
                found.setdefault(method, []).append(value)
        return found

    def choice(self, study: Study) -> str:
        """The method that a study with ``choose`` picks: the highest mean over its seeds.

        Raises:
            ConfigError: see :meth:`scores`.
        """
        means = {name: fmean(values) for name, values in self.scores(study).items()}
        return max(means, key=means.__getitem__)

    def handed_over(self, study: Study) -> list[str]:
        """The override that methods tuned by a study take over from its choice, and nothing else of that method.

        Raises:
            ConfigError: the chosen method does not set it; or see :meth:`scores`.
        """
        assert study.choose is not None
        chosen, key = self.choice(study), study.choose.hand_over
        found = [item for item in self.plan.settings(chosen) if _key_and_value(item)[0] == key]
        if not found:
            raise ConfigError(f"study {study.name} chose {chosen}, which does not set {key}")
        return found[-1:]

    def run(self, studies: Sequence[Study] | None = None) -> int:
        """Do what is not done yet, of these studies or of all; returns how many runs failed for good.

        Raises:
            KeyboardInterrupt: stopped by the user; the run that was under way will be started again.
            ConfigError: the plan is archived, or a study cannot be planned.
        """
        if self.plan.archived:
            raise ConfigError(f"{self.plan.path} is archived: {self.plan.archived}")
        failed = 0
        with _noting_interrupts() as interrupts:
            for study in studies or self.plan.studies:
                if self.plan.sound_worlds:
                    self._refuse_weak_worlds(study)
                runs = [run for run in self.runs_of(study) if self.record(run.method, run.seed) is None]
                asked = len(study.methods) * len(study.seeds)
                self.say(f"study {study.name}: {asked} runs, {len(runs)} to do (about {self.hours(len(runs)):.1f} h)")
                failed += sum(not self._do(run, interrupts) for run in runs)
        return failed

    def hours(self, runs: int) -> float:
        """How long so many runs take, by the finished ones if there are any, else by the plan's own estimate."""
        records = [json.loads(file.read_text(encoding="utf-8")) for file in self.out.glob("runs/*/finished.json")]
        seconds = [record["seconds"] for record in records if record.get("seconds")]
        return runs * (fmean(seconds) / 60 if seconds else self.plan.minutes_per_run) / 60

    def _do(self, run: Run, interrupts: list[int]) -> bool:
        """Run one run until it is finished or has failed too often.

        Raises:
            ConfigError: the run would resolve, or has resolved, to other settings than the plan expects of its method.
        """
        expected = self.plan.expected(run.method)
        world = self._world(run.seed)
        if expected:
            resolved = self.resolve(run.recipe, [*run.settings, f"run_dir={run.folder}", f"playground={world}"])
            refuse_other_settings(run.method, expected, resolved)
        measured = self._measured(run.seed)
        if short := shortfalls(measured):
            self.say(f"world {run.seed}: the warm start fell short: {'; '.join(short)}. It is run all the same")
        for _ in range(ATTEMPTS):
            self.say(f"{run.method}, seed {run.seed}: {run.folder} (attempt {len(run.attempts) + 1})")
            run.begin()
            started = time.monotonic()
            status = self.launch(run.folder, run.recipe, [*run.settings, f"playground={world}"])
            if interrupts:
                raise KeyboardInterrupt
            run.end(status, time.monotonic() - started)
            try:
                if status == 0:
                    run.finish(self.plan.measure.steps, self.plan.measure.sources, measured, expected)
                    return True
                self.say(f"  main_ppo stopped with status {status}; see {run.folder / 'train.log'}")
            except DataError as error:
                self.say(f"  {error}")
        return False

    def _refuse_weak_worlds(self, study: Study) -> None:
        """Build a study's worlds; where policy or judge cannot do their part, no method can show anything.

        Raises:
            ConfigError: names the seed and what fell short.
        """
        for seed in study.seeds:
            if short := shortfalls(self._measured(seed)):
                raise ConfigError(
                    f"study {study.name}: the warm start of world {seed} fell short: {'; '.join(short)}. "
                    f"Replace seed {seed} in {self.plan.path} by one that is not in the plan"
                )

    def _world(self, seed: int) -> Path:
        return self.out / "worlds" / str(seed)

    def _measured(self, seed: int) -> dict[str, float]:
        """What policy and judge can do in the world of a seed, which is built if it is not there.

        Each seed has a world of its own: intents, splits and warm start differ, not only the luck of sampling.
        """
        built = build_playground(self._world(seed), replace(self.playground, seed=seed), progress=None)
        measured: dict[str, float] = built["measured"]
        return measured

    @cached_property
    def _meaning(self) -> tuple[str, dict[str, Any]]:
        """What the recipe and the world are made of, apart from method and seed."""
        return recipe_text(self.recipes, self.plan.recipe), self.playground.settings()


def refuse_contradictions(method: str, settings: Sequence[str], chosen: Sequence[str]) -> None:
    """Refuse a tuned method whose chosen overrides, which come last and win, undo what the method itself sets.

    Raises:
        ConfigError: names the method, the key and both values.
    """
    values = dict(map(_key_and_value, settings))
    for key, value in map(_key_and_value, chosen):
        if values.get(key, value) != value:
            raise ConfigError(f"method {method}: sets {key}={values[key]}, and tuning would run it with {value}")


def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+").partition("=")
    return key, value


@contextmanager
def _noting_interrupts() -> Iterator[list[int]]:
    """Ctrl-C ends the experiment, although what launches a run may take it for the end of that run only."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
