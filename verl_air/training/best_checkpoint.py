"""The best checkpoint by a validation metric survives alongside the last ones: ``checkpoints/best/global_step_N``.

verl deletes older checkpoints (``max_actor_ckpt_to_keep``) in its workers, by path. So the best one is kept under a
second path, made of hard links: that costs neither time nor, until verl deletes the first, disk space. ``best`` is a
folder of checkpoints as verl lays it out, so whatever reads a checkpoint reads it too, and a run can resume from it.

A step competes if it was both saved and validated: let ``trainer.save_freq`` and ``trainer.test_freq`` coincide.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from verl_air.errors import ConfigError
from verl_air.files import write_atomically
from verl_air.settings import closest

LEFT_OUT = ("acc", "anchor_acc", "open_acc", "abstain_rate")
"""Metrics of a data source that a validation leaves out where they are over nothing."""

FOLDER, RECORD = "best", "best_checkpoint.json"
TRACKER = "latest_checkpointed_iteration.txt"
"""verl's own (``verl.utils.checkpoint.checkpoint_manager``): names the checkpoint of a folder that is to be read."""


class BestCheckpoint:
    """Compares checkpoints while a run validates; its record, ``best_checkpoint.json``, survives a resume.

    Args:
        checkpoints: ``trainer.default_local_dir``.
        metric: ``air.best_metric``.
        resumed: the step that the run starts from. A record of a later step, or of another metric, does not count.

    Attributes:
        saved_step: the last step that this run saved or resumed from, set by the trainer; folders of other steps may
            be an earlier run's.
    """

    def __init__(self, checkpoints: str | Path, metric: str, *, resumed: int) -> None:
        self.checkpoints, self.metric, self.value = Path(checkpoints), metric, -math.inf
        self.saved_step = resumed
        if (file := self.checkpoints / RECORD).is_file():
            record = json.loads(file.read_text())
            if record["metric"] == metric and record["global_step"] <= resumed:
                self.value = record["value"]

    def before_save(self, step: int) -> None:
        """Remove what an earlier run saved of a step whose checkpoint is kept: verl would rewrite the linked files."""
        earlier = self.checkpoints / f"global_step_{step}"
        if earlier.is_dir() and (self.checkpoints / FOLDER / earlier.name).is_dir():
            shutil.rmtree(earlier)

    def consider(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the checkpoint of a step if it was saved and no earlier one has a value as high.

        Raises:
            ConfigError: the metric is not among those of validation.
        """
        value, checkpoint = metric_value(self.metric, metrics), self.checkpoints / f"global_step_{step}"
        if value > self.value and step == self.saved_step and (checkpoint / "actor").is_dir():
            self._keep(checkpoint)
            record = {"global_step": step, "metric": self.metric, "value": value, "mode": "max"}
            write_atomically(self.checkpoints / RECORD, json.dumps(record) + "\n")
            self._forget_others(checkpoint.name)
            self.value = value

    def _keep(self, checkpoint: Path) -> None:
        best = self.checkpoints / FOLDER
        partial, kept = best / f".{checkpoint.name}.partial", best / checkpoint.name
        for leftover in (partial, kept):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(checkpoint, partial, copy_function=_link)
        partial.rename(kept)
        write_atomically(best / TRACKER, checkpoint.name.rpartition("_")[2])

    def _forget_others(self, name: str) -> None:
        for other in (self.checkpoints / FOLDER).glob("global_step_*"):
            if other.name != name:
                shutil.rmtree(other)


def metric_value(metric: str, metrics: Mapping[str, float]) -> float:
    """A metric of one validation, NaN if it has no value in this one.

    ``group_acc`` is the mean group accuracy of the splits called ``id``: those called ``ood`` are for the final
    verdict, which a choice among checkpoints would bias. Without an ``id`` split it is the mean over all.

    Raises:
        ConfigError: validation has no such metric.
    """
    if metric == "group_acc":
        found = {name: value for name, value in metrics.items() if name.endswith("/group_acc")}
        values = [value for name, value in found.items() if name.endswith("/id/group_acc")] or list(found.values())
        return float(np.mean(values)) if values else math.nan
    if metric not in metrics:
        head, _, name = metric.rpartition("/")
        if name in LEFT_OUT and f"{head}/group_acc" in metrics:
            return math.nan  # every row that it is over abstained in this validation
        raise ConfigError(
            f"air.best_metric={metric}: not a metric of this run's validation{closest(metric, metrics)}; "
            f"there are {', '.join(sorted(metrics))}"
        )
    return float(metrics[metric])


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
