"""Metrics from stored rollouts equal those that training computes from the same batch."""

import random

import numpy as np
import pytest

from tests.evaluation.support import rows_of
from verl_air.evaluation import Record
from verl_air.evaluation.rollout_metrics import rollout_metrics
from verl_air.training.batch import Trajectories
from verl_air.training.metrics import training_metrics


@pytest.mark.parametrize("seed", range(5))
def test_as_during_training(seed: int) -> None:
    rng = random.Random(seed)
    rows = rows_of(rng, domain="safety", split="train", intents=8, skill=0.5, completions=3)
    rng.shuffle(rows)
    for row in rows[:4]:
        if row["role"] == "open":
            row.update(acc=None, score=None)
    records = [Record.from_mapping(row, "row") for row in rows]
    reward = np.array([record.score for record in records])
    acc = np.array([record.acc for record in records])
    compact = lambda names: np.unique(names, return_inverse=True)[1]  # noqa: E731
    n = len(records)
    batch = Trajectories(
        keys=[str(i) for i in range(n)],
        prompt_N=compact([f"{record.intent_id} {record.prompt}" for record in records]),
        group_N=compact([record.intent_id for record in records]),
        role_N=np.array([record.role for record in records], dtype=object),
        domain_N=np.array(["safety"] * n, dtype=object),
        reward_N=reward,
        info_N={"acc": acc, "abstained": np.isnan(acc).astype(float)},
        length_N=np.ones(n, dtype=int),
        truncated_N=np.zeros(n, dtype=bool),
        padding_N=np.zeros(n, dtype=bool),
        final_N=np.ones(n, dtype=bool),
        session_N=np.arange(n),
    )
    expected = training_metrics(batch, np.isfinite(reward), 0)
    found = rollout_metrics(records)
    assert set(found) <= set(expected)
    assert found == pytest.approx({name: expected[name] for name in found})
    assert len(found) == 7


def test_nothing_is_left_out_rather_than_zero() -> None:
    assert rollout_metrics([]) == {}
