"""One run of a plan: its settings, their hash, its folder, and the record of what it measured."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from verl_air.errors import ConfigError, DataError
from verl_air.evaluation import Curves, curves_of, read_run_folder
from verl_air.evaluation.report.settings import select
from verl_air.files import write_atomically

RunRecord: TypeAlias = dict[str, Any]
"""What is kept of a finished run, as JSON; ``withdrawn`` is the reason why it does not count."""

TRAINING = (
    "air/open_reward/mean",
    "air/anchor_reward/mean",
    "air/gap/mean",
    "air/zero_std_rate",
    "actor/grad_norm",
    "timing_s/step",
    "timing_s/testing",
)
"""Training metrics that are kept in a record."""

RESOLVED = (
    "air",
    "algorithm",
    "data.seed",
    "data.train_batch_size",
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.actor.optim",
    "actor_rollout_ref.actor.policy_loss",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.seed",
    "actor_rollout_ref.rollout.temperature",
    "reward.custom_reward_function.reward_kwargs",
    "trainer.total_training_steps",
)
"""Parts of the resolved recipe that are kept in a record: what makes the method."""

_OTHER_SAMPLING = 10_000  # what an A/A arm adds to the rollout's seed

_LEFT_BY_A_CRASH = ("metrics.jsonl", "validation", "rollouts", "checkpoints", "hydra")


@dataclass(frozen=True)
class Run:
    """A method with a seed. settings: all Hydra overrides except those that name folders. hash: see :meth:`of`."""

    method: str
    seed: int
    recipe: str
    settings: tuple[str, ...]
    hash: str
    folder: Path

    @classmethod
    def of(
        cls,
        method: str,
        seed: int,
        settings: Sequence[str],
        recipe: str,
        meaning: str,
        out: Path,
        *,
        repeats: bool = False,
    ) -> Run:
        """A run with its folder, and the hash that says whether a record is of this very run.

        Args:
            method, seed, recipe: see the class.
            settings: overrides of the method; those of the seed are added here.
            meaning: text of all else that decides the outcome: the recipe and the world.
            out: folder of the runs.
            repeats: an A/A arm: the same world and order of the data, other samples.
        """
        sampling = seed + _OTHER_SAMPLING * repeats
        seeded = (*settings, f"data.seed={seed}", f"actor_rollout_ref.rollout.seed={sampling}")
        digest = hashlib.sha256("\n".join([*seeded, meaning]).encode()).hexdigest()[:10]
        return cls(method, seed, recipe, seeded, digest, out / f"{method}-seed{seed}-{digest}")

    @property
    def record(self) -> RunRecord | None:
        """What the finished run left; None if it is not finished. A record of other settings does not count."""
        try:
            found = json.loads((self.folder / "finished.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("hash") == self.hash else None

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """What is known of the attempts so far: one entry each, without ``status`` if it was cut off."""
        file = self.folder / "attempts.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        found: list[dict[str, Any]] = []
        for entry in map(json.loads, lines):
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
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self._note({"started": _now(), "hash": self.hash})

    def end(self, status: int, seconds: float) -> None:
        """Note how an attempt ended."""
        self._note({"status": status, "seconds": round(seconds, 1)})

    def finish(
        self, steps: Sequence[int], sources: Sequence[str], world: Mapping[str, float], expected: Mapping[str, Any]
    ) -> RunRecord:
        """Read what the run measured and mark it as finished.

        Args:
            steps, sources: validations that have to be there.
            world: what policy and judge could do before training (``measured`` of the playground's manifest).
            expected: resolved settings that make the method.

        Raises:
            DataError: a validation that the plan wants is missing or not whole.
            ConfigError: the run resolved to other settings.
        """
        folder = read_run_folder(self.folder)
        refuse_other_settings(self.method, expected, folder.config)
        curves = curves_of(folder)
        for source in sources:
            found = curves.get(source, {}).get("acc", {})
            if missing := [step for step in steps if step not in found]:
                raise DataError(f"{self.folder}: no whole validation of {source} at step {missing[0]}")
        record: RunRecord = {
            "method": self.method,
            "seed": self.seed,
            "hash": self.hash,
            "settings": list(self.settings),
            "resolved": {key: select(folder.config, key) for key in RESOLVED},
            "attempts": len(self.attempts),
            "seconds": self.attempts[-1].get("seconds"),
            "finished": _now(),
            "git": folder.record.get("git"),
            "versions": folder.record.get("versions"),
            "world": dict(world),
            "curves": {
                source: {metric: _by_text(curve, 6) for metric, curve in metrics.items()}
                for source, metrics in curves.items()
            },
            "training": {name: _by_text(folder.metrics[name], 5) for name in TRAINING if name in folder.metrics},
        }
        write_atomically(self.folder / "finished.json", json.dumps(record, indent=1) + "\n")
        return record

    def _note(self, entry: dict[str, Any]) -> None:
        with (self.folder / "attempts.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry) + "\n")


def refuse_other_settings(method: str, expected: Mapping[str, Any], resolved: Any) -> None:
    """Refuse settings that are not those of the method: a run is what it resolves to, not its name.

    Raises:
        ConfigError: names the method, the key and both values.
    """
    for key, wanted in expected.items():
        if (got := select(resolved, key)) != wanted:
            raise ConfigError(f"method {method}: expects {key}={wanted}, and the run resolves to {got}")


def read_records(path: Path) -> dict[tuple[str, int], RunRecord]:
    """Published records by method and seed, of a file with one per line; empty if there is no file.

    Raises:
        DataError: a line is no record.
    """
    found: dict[tuple[str, int], RunRecord] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            found[record["method"], record["seed"]] = record
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}, line {number}: no record of a run; restore the file, or delete the line"
            ) from error
    return found


def curves_in(record: RunRecord) -> Curves:
    """The curves of a record: steps are numbers again."""
    return {
        source: {metric: {int(step): value for step, value in curve.items()} for metric, curve in metrics.items()}
        for source, metrics in record["curves"].items()
    }


def recipe_text(recipes: Path, name: str) -> str:
    """A recipe's meaning with that of its own defaults: comments and layout do not change a hash.

    Raises:
        ConfigError: there is no such recipe.
    """
    path = recipes / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: no such recipe")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    own = [entry for entry in content.get("defaults") or [] if isinstance(entry, str)]
    included = [recipe_text(recipes, entry) for entry in own if (recipes / f"{entry}.yaml").is_file()]
    return "\n".join([json.dumps(content, sort_keys=True), *included])


def _by_text(series: Mapping[int, float], digits: int) -> dict[str, float]:
    """As JSON has it; what is not a number is left out."""
    return {str(step): round(value, digits) for step, value in sorted(series.items()) if value == value}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
