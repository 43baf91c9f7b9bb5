"""One run of a plan: its settings, their hash, its folder, and whether it is finished."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from verl_air.errors import ConfigError, DataError
from verl_air.evaluation.run_folder import Series, read_run_folder
from verl_air.evaluation.seeds import Curves, curves_of
from verl_air.files import write_atomically

FINISHED = "finished.json"
ATTEMPTS = "attempts.jsonl"
_HASH_LENGTH = 10
_LEFT_BY_A_CRASH = ("metrics.jsonl", "validation", "rollouts", "checkpoints", "hydra")

TRAINING = (
    "air/open_reward/mean",
    "air/anchor_reward/mean",
    "air/gap/mean",
    "air/zero_std_rate",
    "actor/grad_norm",
    "timing_s/step",
    "timing_s/testing",
)
"""Training metrics that are kept with the results."""


@dataclass(frozen=True)
class Run:
    """A method with a seed. settings: all Hydra overrides but those that name folders.

    published: the record of the same settings that stands beside the results, if there is one. Two studies, or two
    methods, that ask for the same settings share the run: its folder is named by the settings.
    """

    method: str
    seed: int
    recipe: str
    settings: tuple[str, ...]
    hash: str
    folder: Path
    published: dict[str, Any] | None = field(default=None, compare=False)

    @property
    def finished(self) -> dict[str, Any] | None:
        """What the finished run left; None if it has to be run. A marker of other settings does not count."""
        try:
            found = json.loads((self.folder / FINISHED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return self.published
        return found if isinstance(found, dict) and found.get("hash") == self.hash else self.published

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """What is known of earlier attempts: one entry each, without ``status`` if it was cut off."""
        file = self.folder / ATTEMPTS
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        found: list[dict[str, Any]] = []
        for line in lines:
            entry = json.loads(line)
            if "status" in entry and found:
                found[-1] |= entry
            else:
                found.append(entry)
        return found

    def begin(self) -> None:
        """Clear what a crashed attempt left, and count this one; its log is kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "train.log"
        if log.is_file():
            log.rename(self.folder / f"train.{len(self.attempts)}.log")
        for name in _LEFT_BY_A_CRASH:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self._note({"started": _now(), "hash": self.hash})

    def end(self, status: int, seconds: float) -> None:
        """Note how an attempt ended."""
        self._note({"status": status, "seconds": round(seconds, 1)})

    def finish(self, steps: Sequence[int], sources: Sequence[str], world: Mapping[str, float]) -> dict[str, Any]:
        """Read what the run measured and mark it as finished.

        Args:
            steps, sources: validations that have to be there.
            world: what policy and judge could before training (``measured`` of the playground's manifest).

        Raises:
            DataError: a validation that the plan wants is not there or not whole.
        """
        folder = read_run_folder(self.folder)
        curves = curves_of(folder)
        for source in sources:
            found = curves.get(source, {}).get("acc", {})
            if missing := [step for step in steps if step not in found]:
                raise DataError(f"{self.folder}: no whole validation of {source} at step {missing[0]}")
        record = {
            "method": self.method,
            "seed": self.seed,
            "hash": self.hash,
            "settings": list(self.settings),
            "attempts": len(self.attempts),
            "seconds": self.attempts[-1].get("seconds"),
            "finished": _now(),
            "git": folder.record.get("git"),
            "versions": folder.record.get("versions"),
            "world": dict(world),
            "curves": _by_text(curves),
            "training": {name: _of_numbers(folder.metrics[name]) for name in TRAINING if name in folder.metrics},
        }
        write_atomically(self.folder / FINISHED, json.dumps(record, indent=1) + "\n")
        return record

    def _note(self, entry: dict[str, Any]) -> None:
        with (self.folder / ATTEMPTS).open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry) + "\n")


def make_run(recipes: Path, out: Path, recipe: str, method: str, seed: int, settings: Sequence[str], world: str) -> Run:
    """A run with its hash and folder.

    Args:
        recipes: folder of the recipes.
        out: folder of the experiment.
        recipe, method, seed: see :class:`Run`.
        settings: overrides of the method; those of the seed are added here.
        world: what the playground is made from; another world is another run.

    Raises:
        ConfigError: there is no such recipe.
    """
    seeded = (*settings, f"data.seed={seed}", f"actor_rollout_ref.rollout.seed={seed}")
    parts = [_recipe_text(recipes, recipe), *seeded, world]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_HASH_LENGTH]
    return Run(method, seed, recipe, seeded, digest, out / "runs" / f"seed{seed}-{digest}")


def read_records(path: Path) -> dict[str, dict[str, Any]]:
    """Published records by hash, of a file with one a line; empty if there is no file.

    Raises:
        DataError: a line is no record.
    """
    if not path.is_file():
        return {}
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            found[str(record["hash"])] = record
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}, line {number}: no record of a run; restore the file, or delete the line"
            ) from error
    return found


def read_curves(record: dict[str, Any]) -> Curves:
    """The curves of a finished run's record: steps are numbers again."""
    return {
        source: {metric: {int(step): value for step, value in curve.items()} for metric, curve in metrics.items()}
        for source, metrics in record["curves"].items()
    }


def _recipe_text(recipes: Path, name: str) -> str:
    """A recipe's meaning with that of its own defaults: comments and layout do not change a hash."""
    path = recipes / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: no such recipe")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    own = [entry for entry in content.get("defaults") or [] if isinstance(entry, str)]
    included = [_recipe_text(recipes, entry) for entry in own if (recipes / f"{entry}.yaml").is_file()]
    return "\n".join([json.dumps(content, sort_keys=True), *included])


def _by_text(curves: Curves) -> dict[str, dict[str, dict[str, float]]]:
    return {
        source: {
            metric: {str(step): round(value, 6) for step, value in sorted(curve.items())}
            for metric, curve in metrics.items()
        }
        for source, metrics in curves.items()
    }


def _of_numbers(series: Series) -> dict[str, float]:
    return {str(step): round(value, 5) for step, value in sorted(series.items()) if value == value}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
