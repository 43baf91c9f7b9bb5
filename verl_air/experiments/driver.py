"""The runs of a plan, one after the other; stopped at will and resumed where it was.

A finished run is recognised by its marker, which holds the hash of its settings, and is not repeated. One that crashed
is tried again, from its start, a few times; the attempts are counted and stand in the results.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any

from verl_air.errors import ConfigError, DataError
from verl_air.evaluation.seeds import area_under
from verl_air.experiments.plan import Plan, Study
from verl_air.experiments.runs import Run, make_run, read_curves
from verl_air.playground.build import PlaygroundConfig, build_playground
from verl_air.playground.measure import shortfalls
from verl_air.playground.quickstart import train

ATTEMPTS = 3

Launch = Callable[[Path, str, Sequence[str]], int]
"""Starts ``main_ppo`` in a folder with a recipe and overrides; returns its exit status."""


@dataclass
class Experiment:
    """A plan and the folder its runs live in.

    recipes: folder of the recipes. say: is told what happens. published: records by hash that stand beside the results;
    such a run is not done again, so that an experiment can go on in another clone.
    """

    plan: Plan
    out: Path
    recipes: Path = Path("recipes")
    launch: Launch = train
    say: Callable[[str], None] = print
    playground: PlaygroundConfig = field(default_factory=PlaygroundConfig)
    published: dict[str, dict[str, Any]] = field(default_factory=dict)

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
        tuning = self.plan.tuned_by(method)
        if tuning is not None:
            chosen = self.plan.methods[self.choice(tuning)].set
            refuse_contradictions(method, settings, chosen)
            settings += chosen
        run = make_run(self.recipes, self.out, self.plan.recipe, method, seed, settings, self._world(seed))
        return replace(run, published=self.published.get(run.hash))

    def withdrawn(self, study: Study) -> dict[str, str]:
        """Methods of a study whose published records do not count, with the reason."""
        reasons = {r["method"]: r["withdrawn"] for r in self.published.values() if "withdrawn" in r}
        return {method: reasons[method] for method in study.methods if method in reasons}

    def choice(self, study: Study) -> str:
        """The method that a study with ``choose`` picks: the highest mean over its seeds.

        Raises:
            ConfigError: its runs are not all finished.
        """
        assert study.choose is not None
        means = {name: fmean(values) for name, values in self.scores(study).items()}
        return max(means, key=means.__getitem__)

    def scores(self, study: Study) -> dict[str, list[float]]:
        """What a study with ``choose`` compares, by method, a value a seed.

        Raises:
            ConfigError: its runs are not all finished.
        """
        choice = study.choose
        assert choice is not None
        found: dict[str, list[float]] = {}
        for run in self.runs_of(study):
            record = run.finished
            if record is None:
                raise ConfigError(
                    f"study {study.name} has to be finished first: it chooses settings for others, and "
                    f"{run.method} with seed {run.seed} is missing"
                )
            curve, steps = read_curves(record)[choice.source][choice.of], self.plan.measure.steps
            value = curve[steps[-1]] if choice.by == "end" else area_under(curve, steps)
            found.setdefault(run.method, []).append(value)
        return found

    def run(self, studies: Sequence[Study] | None = None, methods: Sequence[str] | None = None) -> int:
        """Do what is not done yet; returns how many runs failed for good.

        studies, methods: leave out the others, so that the comparison that matters most can go first.

        Raises:
            KeyboardInterrupt: stopped by hand; the run that was under way will be started anew.
            ConfigError: a study cannot be planned, or a method is in none of the studies.
        """
        failed = 0
        studies = studies or self.plan.studies
        known = {name for study in studies for name in study.methods}
        if unknown := sorted(set(methods or ()) - known):
            raise ConfigError(
                f"no such method in the chosen studies: {', '.join(unknown)}. There are: {', '.join(sorted(known))}"
            )
        with _Interruptible() as interrupted:
            for study in studies:
                runs = [run for run in self.runs_of(study) if methods is None or run.method in methods]
                missing = sum(run.finished is None for run in runs)
                self.say(f"study {study.name}: {len(runs)} runs, {missing} to do (about {self.hours(missing):.1f} h)")
                for run in runs:
                    if run.finished is None:
                        failed += not self._do(run, interrupted)
        return failed

    def hours(self, runs: int) -> float:
        """How long so many runs take, by the finished ones if there are any, else by the plan's own estimate."""
        seconds = [
            record["seconds"]
            for file in self.out.glob("runs/*/finished.json")
            if (record := json.loads(file.read_text(encoding="utf-8"))).get("seconds")
        ]
        minutes = fmean(seconds) / 60 if seconds else self.plan.minutes_a_run
        return runs * minutes / 60

    def _do(self, run: Run, interrupted: Callable[[], bool]) -> bool:
        """Run one run until it is finished or has failed too often."""
        world = self.out / "worlds" / str(run.seed)
        measured = build_playground(world, self._config(run.seed), progress=None)["measured"]
        if short := shortfalls(measured):
            self.say(f"world {run.seed}: the warm start fell short: {'; '.join(short)}. It is run all the same")
        steps = self.plan.measure.steps
        for attempt in range(1, ATTEMPTS + 1):
            self.say(f"{run.method}, seed {run.seed}: {run.folder} (attempt {len(run.attempts) + 1})")
            run.begin()
            started = time.monotonic()
            status = self.launch(run.folder, run.recipe, [*run.settings, f"playground={world}"])
            if interrupted():
                raise KeyboardInterrupt
            run.end(status, time.monotonic() - started)
            try:
                if status == 0:
                    run.finish(steps, self.plan.measure.sources, measured)
                    return True
                self.say(f"  main_ppo stopped with status {status}; see {run.folder / 'train.log'}")
            except DataError as error:
                self.say(f"  {error}")
            if attempt < ATTEMPTS:
                self.say("  once more")
        return False

    def _config(self, seed: int) -> PlaygroundConfig:
        """Each seed has a world of its own: intents, splits and warm start differ, not only the luck of sampling."""
        settings = {name: getattr(self.playground, name) for name in PlaygroundConfig.__dataclass_fields__}
        return PlaygroundConfig(**{**settings, "seed": seed})

    def _world(self, seed: int) -> str:
        return json.dumps(self._config(seed).settings(), sort_keys=True)

    def records(self, study: Study) -> dict[str, dict[int, dict[str, Any]]]:
        """What is finished of a study: method, then seed."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for method in study.methods:
            for seed in study.seeds:
                try:
                    record = self.run_of(method, seed).finished
                except ConfigError:  # its settings are not chosen yet, or contradict each other
                    continue
                if record is not None and "withdrawn" not in record:
                    found.setdefault(method, {})[seed] = record
        return found


def refuse_contradictions(method: str, settings: Sequence[str], chosen: Sequence[str]) -> None:
    """Refuse a tuned method whose chosen overrides, which come last and win, undo what the method itself sets.

    Raises:
        ConfigError: names the method, the key and both values.
    """
    values = dict(setting.lstrip("+").split("=", 1) for setting in settings)
    for setting in chosen:
        key, value = setting.lstrip("+").split("=", 1)
        if values.get(key, value) != value:
            raise ConfigError(f"method {method}: sets {key}={values[key]}, and tuning would run it with {value}")


class _Interruptible:
    """Ctrl-C ends the experiment, although what launches a run may take it for the end of that run only."""

    def __enter__(self) -> Callable[[], bool]:
        self._seen = False
        self._before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._note)
        return lambda: self._seen

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._seen = True
        raise KeyboardInterrupt


def whole_length(experiment: Experiment) -> Iterator[tuple[Study, int, int]]:
    """Each study with the number of its runs and of those that no earlier study shares; choices are left open."""
    seen: set[tuple[int, tuple[str, ...], str | None]] = set()
    for study in experiment.plan.studies:
        keys = set()
        for name in study.methods:
            tuning = experiment.plan.tuned_by(name)
            tuned = tuning.name if tuning else None
            keys |= {(seed, tuple(experiment.plan.settings(name)), tuned) for seed in study.seeds}
        yield study, len(keys), len(keys - seen)
        seen |= keys
