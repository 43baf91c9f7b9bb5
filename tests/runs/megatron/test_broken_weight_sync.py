"""Negative control: a weight sync that forgets one tensor is seen by the metric that the other runs rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines.megatron.engine import Megatron
from tests.runs.megatron.expect import SYNCED, probs_diff_max
from tests.runs.megatron.launch import megatron_main_ppo

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.verl_run, pytest.mark.timeout(2400)]

EXTENSION = "actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls"


def test_a_stale_tensor_is_seen(playground: Path, tmp_path: Path) -> None:
    run = megatron_main_ppo(
        tmp_path,
        playground,
        Megatron(),
        "trainer.total_training_steps=2",
        "trainer.save_freq=-1",
        f"{EXTENSION}=tests.runs.megatron.stale_weights.StaleWorkerExtension",
    )
    difference = probs_diff_max(run)
    assert difference[1] < SYNCED  # the first sync is whole
    assert difference[2] > 10 * SYNCED  # one update later lm_head is old
