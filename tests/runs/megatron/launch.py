"""``main_ppo`` with ``model_engine=megatron`` on the CPU: the quickstart recipe, a parallel layout and the shim."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.engines.megatron.engine import WITHOUT_FUSION, Megatron
from tests.runs.launch import NO_VALIDATION, ORACLE, SMALL, Run, main_ppo

_ROLE = "actor_rollout_ref"
_MEGATRON = f"{_ROLE}.actor.megatron"
_OVERRIDES = f"{_MEGATRON}.override_transformer_config"

# The CPU recipe's settings of FSDP2 have no place in a Megatron actor.
ENGINE = (
    "model_engine=megatron",
    f"{_ROLE}.actor.strategy=megatron",
    f"{_ROLE}.ref.strategy=megatron",
    f"~{_ROLE}.actor.fsdp_config",
    f"~{_ROLE}.ref.fsdp_config",
    f"{_ROLE}.model.use_remove_padding=True",
    f"{_ROLE}.model.external_lib=tests.runs.megatron.worker",
    f"{_MEGATRON}.vanilla_mbridge=True",
    *(f"++{_OVERRIDES}.{name}={value}" for name, value in WITHOUT_FUSION.items()),
)
SETTINGS = (
    *SMALL,
    *ORACLE,
    *NO_VALIDATION,
    "air.gap=signed",  # two intents per step: gaps of one sign alone could leave the auxiliary loss with nothing
    f"{_ROLE}.actor.ppo_micro_batch_size_per_gpu=12",
    f"{_ROLE}.rollout.log_prob_micro_batch_size_per_gpu=12",
)
# Each completion has a random seed of its own, so that two runs can be compared.
SEEDED = (
    f"{_ROLE}.rollout.agent.default_agent_loop=seeded",
    f"{_ROLE}.rollout.agent.agent_loop_config_path={Path(__file__).with_name('seeded_loop.yaml')}",
)


def megatron_main_ppo(folder: Path, playground: Path, layout: Megatron, *overrides: str) -> Run:
    """Run the quickstart recipe on as many ranks as the layout has places; no data parallelism."""
    ranks = layout.tp * layout.pp * layout.cp
    sizes = (
        f"{_MEGATRON}.tensor_model_parallel_size={layout.tp}",
        f"{_MEGATRON}.pipeline_model_parallel_size={layout.pp}",
        f"{_MEGATRON}.context_parallel_size={layout.cp}",
        f"{_MEGATRON}.sequence_parallel={layout.sequence_parallel}",
        f"++{_OVERRIDES}.sequence_parallel={layout.sequence_parallel}",
        f"trainer.n_gpus_per_node={ranks}",
        f"ray_kwargs.ray_init.num_gpus={ranks}",
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(ROOT), prepend=":")  # Ray's workers import tests.runs.megatron.worker
        environment.setenv("TORCHDYNAMO_DISABLE", "1")  # megatron-core compiles its element-wise parts
        return main_ppo(folder, playground, *ENGINE, *sizes, *SETTINGS, *SEEDED, *overrides)
