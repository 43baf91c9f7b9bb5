"""The plan of an experiment: a YAML file that is written, and committed, before the runs.

::

    recipe: quickstart                   # every run is this recipe with overrides
    common: [KEY=VALUE, ...]             # of every run
    measure: {steps: [...], sources: [...], thresholds: {source: share}}
    methods:
      NAME: {title: ..., extends: OTHER, set: [KEY=VALUE, ...], tuned_by: STUDY}
    studies:
      - {name: ..., question: ..., methods: [...], seeds: [...], against: NAME,
         choose: {by: area, of: group_acc, source: ...}}

A method that ``extends`` another has its settings and its ``tuned_by``, then its own. A study that has ``choose`` picks
one of its methods; a method with ``tuned_by`` takes over what the chosen method sets itself (its ``set``), last.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from verl_air.errors import ConfigError
from verl_air.evaluation.seeds import METRICS

T = TypeVar("T")
SUMMARIES = ("end", "area")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """steps: at which every run validates. sources: ``domain/split``. thresholds: of group accuracy, by source."""

    steps: tuple[int, ...]
    sources: tuple[str, ...]
    thresholds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Method:
    """set: Hydra overrides of its own. tuned_by: a study whose winner's overrides come last."""

    name: str
    title: str
    set: tuple[str, ...] = ()
    extends: str | None = None
    tuned_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a study picks one of its methods: the highest mean over seeds of a curve's ``end`` or ``area``."""

    source: str
    by: str = "area"
    of: str = "group_acc"


@dataclass(frozen=True, kw_only=True)
class Study:
    """One question. against: the method that the others are held against."""

    name: str
    question: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    against: str | None = None
    choose: Choice | None = None
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan; see the module.

    minutes_a_run: measured, for the estimate of the whole. note: free text for the page.
    """

    path: Path
    recipe: str
    measure: Measure
    methods: Mapping[str, Method]
    studies: tuple[Study, ...]
    common: tuple[str, ...] = ()
    minutes_a_run: float = 0.0
    note: str = ""
    text: str = field(default="", repr=False)

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
        chain = list(_chain(self, method))
        return [*self.common, *(item for link in reversed(chain) for item in link.set)]

    def tuned_by(self, method: str) -> Study | None:
        """The study that chooses for a method, its own or one it inherits."""
        name = next((link.tuned_by for link in _chain(self, method) if link.tuned_by), None)
        return None if name is None else self.study(name)


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read and check a plan.

    Raises:
        ConfigError: what is wrong, and where.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.safe_load(text)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as a plan ({error})") from error
    raw = _mapping(raw, path, "the plan")
    methods = {
        name: _make(Method, {"name": name, **_mapping(value, path, f"methods.{name}")}, path, f"methods.{name}")
        for name, value in _mapping(raw.pop("methods", None), path, "methods").items()
    }
    studies = []
    for number, value in enumerate(raw.pop("studies", None) or []):
        value, where = _mapping(value, path, f"studies[{number}]"), f"studies[{number}]"
        if value.get("choose") is not None:
            value["choose"] = _make(Choice, _mapping(value["choose"], path, where), path, f"{where}.choose")
        studies.append(_make(Study, value, path, where))
    measure = _make(Measure, _mapping(raw.pop("measure", None), path, "measure"), path, "measure")
    plan = _make(
        Plan,
        {**raw, "path": path, "text": text, "methods": methods, "studies": tuple(studies), "measure": measure},
        path,
        "the plan",
    )
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    names = [study.name for study in plan.studies]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{plan.path}: studies need names, each once")
    if len(plan.measure.steps) < 2 or list(plan.measure.steps) != sorted(set(plan.measure.steps)):
        raise ConfigError(f"{plan.path}: measure.steps must be two or more rising steps")
    if missing := [source for source in plan.measure.sources if source not in plan.measure.thresholds]:
        raise ConfigError(f"{plan.path}: measure.thresholds lacks {missing[0]}")
    for method in plan.methods:
        list(_chain(plan, method))
    for study in plan.studies:
        where = f"{plan.path}: study {study.name}"
        for name in (*study.methods, *((study.against,) if study.against else ())):
            if name not in plan.methods:
                raise ConfigError(f"{where}: no method {name!r}; there are {', '.join(plan.methods)}")
        if study.against and study.against not in study.methods:
            raise ConfigError(f"{where}: against {study.against!r}, which is not among its methods")
        if not study.seeds or len(set(study.seeds)) < len(study.seeds):
            raise ConfigError(f"{where}: seeds must be numbers, each once")
        if choice := study.choose:
            if choice.by not in SUMMARIES or choice.of not in METRICS or choice.source not in plan.measure.sources:
                raise ConfigError(
                    f"{where}: choose.by must be one of {', '.join(SUMMARIES)}, choose.of one of {', '.join(METRICS)}, "
                    f"choose.source one of {', '.join(plan.measure.sources)}"
                )
            if circular := [name for name in study.methods if plan.tuned_by(name) is not None]:
                raise ConfigError(f"{where}: it chooses, and its method {circular[0]} is tuned itself")
        earlier = names[: names.index(study.name)]
        for name in study.methods:
            tuning = plan.tuned_by(name)
            if tuning is not None and (tuning.name not in earlier or tuning.choose is None):
                raise ConfigError(
                    f"{where}: {name} is tuned by {tuning.name}, which must come before and have `choose`"
                )


def _chain(plan: Plan, name: str) -> Sequence[Method]:
    """A method and those it extends, itself first."""
    chain: list[Method] = []
    current: str | None = name
    while current is not None:
        if current not in plan.methods:
            raise ConfigError(f"{plan.path}: method {name}: no method {current!r}")
        if plan.methods[current] in chain:
            raise ConfigError(f"{plan.path}: method {name} extends itself")
        chain.append(plan.methods[current])
        current = chain[-1].extends
    return chain


def _mapping(value: Any, path: Path, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: {where} must hold keys and values, got {value!r}")
    return dict(value)


def _make(kind: type[T], values: dict[str, Any], path: Path, where: str) -> T:
    """A dataclass from YAML: unknown and missing keys are named, lists become tuples."""
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in known]:
        raise ConfigError(f"{path}: {where}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:
        raise ConfigError(f"{path}: {where}: {str(error).partition('() ')[2] or error}") from error
