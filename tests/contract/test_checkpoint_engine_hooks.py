"""``verl_air/cpu/checkpoint_engine.py``: how verl makes, connects and drives a weight transfer."""

from __future__ import annotations

from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineManager, CheckpointEngineRegistry

from tests.contract.expect import holds, takes, text_of
from verl_air.cpu.checkpoint_engine import GlooCheckpointEngine

USED_BY = "verl_air/cpu/checkpoint_engine.py"


def test_it_is_registered_by_name() -> None:
    takes(CheckpointEngineRegistry.register, "backend", used_by=USED_BY)
    assert CheckpointEngineRegistry.get("gloo") is GlooCheckpointEngine


def test_it_answers_all_that_verl_asks() -> None:
    missing = sorted(GlooCheckpointEngine.__abstractmethods__)
    holds(not missing, f"CheckpointEngine asks for nothing new; it also asks for {missing}", used_by=USED_BY)
    takes(CheckpointEngine.send_weights, "weights", "global_steps", used_by=USED_BY)
    takes(CheckpointEngine.receive_weights, "global_steps", used_by=USED_BY)
    takes(CheckpointEngine.build_topology, "actor_wg_world_size", "rollout_world_size", "metadata", used_by=USED_BY)


def test_the_order_is_prepare_connect_send_finalize() -> None:
    text = text_of("verl.checkpoint_engine.base", "CheckpointEngineManager.build_process_group")
    steps = [text.find(word) for word in ("'prepare'", "build_topology", "'init_process_group'")]
    holds(0 < steps[0] < steps[1] < steps[2], "a group is prepared, laid out, then joined", used_by=USED_BY)
    assert CheckpointEngineManager


def test_the_actor_makes_its_engine_with_these_arguments() -> None:
    text = text_of("verl.workers.engine_workers")
    holds("is_master=" in text and "bucket_size=" in text, "actors pass is_master and bucket_size", used_by=USED_BY)
