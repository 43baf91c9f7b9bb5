"""The plan of an experiment: a YAML file that is written, and committed, before the runs.

::

    recipe: quickstart                   # every run is this recipe with overrides
    setting: hidden                      # of the playground; default plain
    sound_worlds: true                   # a seed whose warm start fell short is refused before the first run
    common: [KEY=VALUE, ...]             # of every run
    measure: {steps: [...], sources: [...]}
    methods:
      NAME: {title: ..., extends: OTHER, set: [KEY=VALUE, ...], tuned_by: STUDY, expect: {KEY: VALUE}}
      AGAIN: {title: ..., repeats: NAME}
    aa_spread: 0.115
    studies:
      - {name: ..., question: ..., methods: [...], seeds: [...], against: NAME, charts: true,
         choose: {source: ..., of: group_acc, by: area, hand_over: KEY}}

A method that ``extends`` another has its settings, its ``tuned_by`` and what it expects, then its own. ``expect`` says
what the resolved settings of its runs must be: a run that resolves to anything else is refused. A method that
``repeats`` another is the same with other sampling seeds (an A/A arm). Every comparison has one: all other differences
are read on the scale of what two equal methods differ by. A study with ``choose`` picks one
of its methods; a method with ``tuned_by`` takes over one setting of the chosen method: its learning rate, unless
``hand_over`` names another key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, model_validator

from verl_air.errors import ConfigError
from verl_air.evaluation import METRICS
from verl_air.playground.framings import Setting
from verl_air.settings import Settings


class Measure(Settings):
    """steps: at which every run validates. sources: ``domain/split``."""

    prefix: ClassVar[str] = "measure"
    steps: tuple[int, ...]
    sources: tuple[str, ...]

    @model_validator(mode="after")
    def _check(self) -> Measure:
        if len(self.steps) < 2 or list(self.steps) != sorted(set(self.steps)):
            raise ConfigError("steps must be two or more rising steps")
        return self


class Method(Settings):
    """set: Hydra overrides of its own. tuned_by: the study that chooses a setting for it.

    expect: dotted keys of the resolved recipe with the values that they must have. repeats: see the module.
    """

    prefix: ClassVar[str] = "method"
    title: str
    set: tuple[str, ...] = ()
    extends: str | None = None
    repeats: str | None = None
    tuned_by: str | None = None
    expect: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Method:
        if self.repeats and (self.extends or self.set or self.tuned_by):
            raise ConfigError(f"{self.title}: repeats {self.repeats}, so it has no settings of its own")
        return self


class Choice(Settings):
    """How a study picks one of its methods: the highest mean over seeds of a curve's end point or area.

    hand_over: the key whose value the methods take over that are tuned by the study.
    """

    prefix: ClassVar[str] = "choose"
    source: str
    of: str = "group_acc"
    by: Literal["end", "area"] = "area"
    hand_over: str = "actor_rollout_ref.actor.optim.lr"

    @model_validator(mode="after")
    def _check(self) -> Choice:
        if self.of not in METRICS:
            raise ConfigError(f"of must be one of {', '.join(METRICS)}")
        return self


class Study(Settings):
    """One question. against: the method that the others are compared with. charts: draw its group accuracy."""

    prefix: ClassVar[str] = "study"
    name: str
    question: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    against: str | None = None
    choose: Choice | None = None
    title: str = ""
    charts: bool = False

    @model_validator(mode="after")
    def _check(self) -> Study:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"{self.name}: seeds must be numbers, each once")
        if self.against and self.against not in self.methods:
            raise ConfigError(f"{self.name}: against {self.against!r}, which is not among its methods")
        return self


class ExperimentPlan(Settings):
    """A plan; see the module.

    archived: why the plan is finished for good: nothing is run, and its records are taken as they are, by method and
    seed, whatever the recipes have become. minutes_per_run: measured, for the estimate of the whole. aa_spread: the
    standard deviation over seeds of the difference between two equal methods, measured before; the power of the design.
    """

    prefix: ClassVar[str] = "plan"
    path: Path
    recipe: str
    measure: Measure
    methods: dict[str, Method]
    studies: tuple[Study, ...]
    setting: Setting = "plain"
    sound_worlds: bool = False
    common: tuple[str, ...] = ()
    minutes_per_run: float = 0.0
    aa_spread: float = 0.0
    archived: str = ""

    def study(self, name: str) -> Study:
        """A study by name.

        Raises:
            ConfigError: there is none.
        """
        for study in self.studies:
            if study.name == name:
                return study
        raise ConfigError(f"{self.path}: no study {name!r}; there are {', '.join(s.name for s in self.studies)}")

    def settings(self, method: str) -> list[str]:
        """Overrides of a method: the common ones, those it extends, its own. Without what was chosen for it."""
        return [*self.common, *(item for link in reversed(self._chain(method)) for item in link.set)]

    def expected(self, method: str) -> dict[str, Any]:
        """What the resolved settings of a method must be, with what the methods expect that it extends."""
        return {key: value for link in reversed(self._chain(method)) for key, value in link.expect.items()}

    def repeats(self, method: str) -> str | None:
        """The method that this one repeats, if it is an A/A arm."""
        return self.methods[method].repeats

    def tuned_by(self, method: str) -> Study | None:
        """The study that chooses for a method, its own or one it inherits."""
        name = next((link.tuned_by for link in self._chain(method) if link.tuned_by), None)
        return None if name is None else self.study(name)

    def _chain(self, method: str) -> list[Method]:
        """A method and those it extends, itself first."""
        chain: list[Method] = []
        name: str | None = method
        while name is not None:
            if name not in self.methods:
                raise ConfigError(f"method {method}: no method {name!r}")
            if self.methods[name] in chain:
                raise ConfigError(f"method {method} extends itself")
            chain.append(self.methods[name])
            name = chain[-1].extends or chain[-1].repeats
        return chain

    @model_validator(mode="after")
    def _check(self) -> ExperimentPlan:
        names = [study.name for study in self.studies]
        if not names or len(set(names)) < len(names):
            raise ConfigError("studies need names, each once")
        for method in self.methods:
            self._chain(method)
        for number, study in enumerate(self.studies):
            if unknown := [name for name in study.methods if name not in self.methods]:
                raise ConfigError(f"study {study.name}: no method {unknown[0]!r}; there are {', '.join(self.methods)}")
            if study.choose and study.choose.source not in self.measure.sources:
                raise ConfigError(f"study {study.name}: choose.source must be one of {', '.join(self.measure.sources)}")
            for name in study.methods:
                tuning = self.tuned_by(name)
                if tuning and study.choose:
                    raise ConfigError(f"study {study.name}: it chooses, and its method {name} is tuned itself")
                if tuning and (tuning.name not in names[:number] or tuning.choose is None):
                    raise ConfigError(
                        f"study {study.name}: {name} is tuned by {tuning.name}, which must come first and have `choose`"
                    )
            if study.against and not self.archived:
                self._check_comparison(study)
        return self

    def _check_comparison(self, study: Study) -> None:
        """A comparison has an A/A arm, and says of each method what its runs must resolve to."""
        if not any(self.methods[name].repeats == study.against for name in study.methods):
            raise ConfigError(
                f"study {study.name}: compares with {study.against} and has no A/A arm; add a method with "
                f"`repeats: {study.against}`"
            )
        for name in study.methods:
            if not self.expected(name):
                raise ConfigError(f"method {name}: add `expect`, the resolved settings that make it this method")


def read_plan(path: Path) -> ExperimentPlan:
    """Read and check a plan.

    Raises:
        ConfigError: what is wrong, and where.
    """
    try:
        raw = _tuples(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        if not isinstance(raw, dict):
            raise ConfigError(f"expected keys and values, got {raw!r}")
        studies = []
        for value in raw.get("studies") or ():
            choose = value.get("choose") and Choice.from_mapping(value["choose"])
            studies.append(Study.from_mapping({**value, "choose": choose}))
        methods = {name: Method.from_mapping(value) for name, value in (raw.get("methods") or {}).items()}
        measure = Measure.from_mapping(raw.get("measure"))
        return ExperimentPlan(
            **{**raw, "path": path, "methods": methods, "studies": tuple(studies), "measure": measure}
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _tuples(value: Any) -> Any:
    """YAML's lists as tuples: a plan does not change."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return {name: _tuples(item) for name, item in value.items()} if isinstance(value, dict) else value
