"""Why our preflight refuses a recipe: for each refusal, what the installed verl does that makes it necessary.

A failure says that a refusal may have become unnecessary: look, and remove it. Refusals that follow from AIR alone are
not here: a missing ``air:`` key, whole meta-groups, two completions for leave-one-out, routes, data, model folders.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.reward import get_custom_reward_fn

from tests.contract.expect import holds, text_of

BASE, ENGINE = "verl.trainer.ppo.v1.trainer_base", "verl.workers.engine"
WORKERS, ACTOR = "verl.workers.engine_workers", "verl.workers.config.actor"
MEGATRON, CORE = f"{ENGINE}.megatron.transformer_impl", "megatron.core"

# what is refused -> (module, function, code), each of which is a reason
SETTINGS = {
    "trainer.use_v1=False": [
        ("verl.trainer.main_ppo", "main", "from verl.trainer.main_ppo_v0 import TaskRunner"),
    ],
    "trainer.v1.sampler.custom_sampler.path": [
        (BASE, "PPOTrainer._build_replay_buffer", "load_extern_type(custom_sampler.path, custom_sampler.name)"),
    ],
    "distillation.enabled": [
        (WORKERS, "ActorRolloutRefWorker.init_model", "self.loss_fn = partial(distillation_ppo_loss, "),
    ],
    "actor.checkpoint.async_save with air.best_metric": [
        (BASE, "PPOTrainer._save_checkpoint", "if actor_ckpt_cfg.get('async_save', False):"),
    ],
    "use_remove_padding=False with Megatron context parallelism": [
        (MEGATRON, None, "if not self.engine_config.use_remove_padding:\n                raise ValueError("),
        (WORKERS, None, "self.engine_config.use_remove_padding = self.model_config.get('use_remove_padding', False)"),
    ],
}
SIZES = {
    "train_batch_size over parameter_sync_step": [
        (BASE, "PPOTrainer.step", "assert train_batch_size % self.parameter_sync_step == 0"),
    ],
    "ppo_mini_batch_size above train_batch_size": [
        (ACTOR, "ActorConfig.validate", "if train_batch_size < self.ppo_mini_batch_size:"),
    ],
    "a mini-batch over data-parallel ranks": [
        (
            WORKERS,
            "TrainingWorker.train_mini_batch",
            "assert mini_batch_size % self.engine.get_data_parallel_size() == 0",
        ),
    ],
    "micro-batches": [
        (f"{ENGINE}.utils", "prepare_micro_batches", "assert total_data_size % (force_group_size * micro_batch_size_"),
        (BASE, "PPOTrainer._get_required_batch_multiple", "math.lcm(required_multiple, actor_global_mini_batch_size)"),
    ],
    "token budgets": [
        ("verl.utils.seqlen_balancing", "rearrange_micro_batches", "assert max_token_len >= max_seq_len"),
        (f"{ENGINE}.utils", "prepare_micro_batches", "max_token_len = max_token_len_per_gpu * sp_size"),
    ],
    "fsdp_size": [
        (f"{ENGINE}.fsdp.utils", "create_device_mesh", "mesh_shape=(world_size // fsdp_size, fsdp_size)"),
        (f"{ENGINE}.fsdp.utils", "create_device_mesh", "if fsdp_size < 0 or fsdp_size >= world_size:"),
    ],
    "Ulysses over GPUs": [
        (f"{ENGINE}.fsdp.transformer_impl", None, "mesh_shape=(dp_size, self.ulysses_sequence_parallel_size)"),
    ],
    "Ulysses over heads": [
        ("verl.models.transformers.monkey_patch", None, "assert num_attention_heads % ulysses_sp_size == 0"),
        ("verl.models.transformers.monkey_patch", None, "assert num_key_value_heads % ulysses_sp_size == 0 or "),
    ],
}
MEGATRON_SIZES = {
    "tp x pp x cp over GPUs": [
        (f"{CORE}.parallel_state", "initialize_model_parallel", "if world_size % model_size != 0:"),
    ],
    "ep x etp x pp over GPUs": [
        (
            f"{CORE}.parallel_state",
            "initialize_model_parallel",
            "if world_size % expert_tensor_model_pipeline_parallel_size != 0:",
        ),
    ],
    "heads over tp": [
        (f"{CORE}.transformer.transformer_config", None, "self.num_attention_heads % self.tensor_model_parallel_size"),
        (f"{CORE}.transformer.transformer_config", None, "self.num_query_groups % self.tensor_model_parallel_size"),
    ],
    "layers over pp": [
        (f"{CORE}.transformer.transformer_block", None, "num_layers % config.pipeline_model_parallel_size == 0"),
        (f"{CORE}.transformer.transformer_config", None, "if self.pipeline_model_parallel_layout is not None:"),
    ],
    "experts over ep": [
        (f"{CORE}.transformer.moe.moe_layer", None, "self.config.num_moe_experts % "),
    ],
}
REASONS = SETTINGS | SIZES | MEGATRON_SIZES


@pytest.mark.parametrize("refused", REASONS)
def test_a_refusal_is_still_necessary(refused: str) -> None:
    if refused in MEGATRON_SIZES and find_spec("megatron") is None:
        pytest.skip("megatron-core is not installed")
    for module, function, code in REASONS[refused]:
        holds(
            code in text_of(module, function),
            f"{module} holds {code!r}, which is why {refused} is refused (else remove the refusal)",
            used_by="verl_air/training/preflight",
        )


def test_top_level_reward_keys_are_ignored() -> None:
    """verl has a function that moves them to where they are read, which its PPO entry does not call."""
    for module in ("verl.trainer.main_ppo", BASE):
        holds(
            "migrate_legacy_reward_impl" not in text_of(module),
            f"{module} ignores top-level reward keys (else remove _legacy_keys)",
            used_by="verl_air/training/preflight/inputs.py (check_rewards)",
        )


def test_without_a_reward_function_verl_chooses_one_by_data_source() -> None:
    config = OmegaConf.create({"reward": {"custom_reward_function": {"path": None, "name": None}}})
    holds(
        get_custom_reward_fn(config) is None,
        "a recipe without a reward function has none",
        used_by="verl_air/training/preflight/inputs.py (check_rewards)",
    )


def test_gspo_is_accepted_with_context_parallelism() -> None:
    for module in (MEGATRON, ACTOR, f"{ENGINE}.utils", "verl.workers.config.engine"):
        text = text_of(module)
        refusing = [line for line in text.splitlines() if "seq-mean-token-mean" in line and "context" in line]
        holds(not refusing, f"{module} accepts seq-mean-token-mean on all layouts", used_by="docs/megatron.md")
