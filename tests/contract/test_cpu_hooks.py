"""``verl_air/cpu``: the places where verl and vLLM ask what hardware they run on."""

from __future__ import annotations

import ast
import importlib.metadata as metadata

import pytest
from verl.checkpoint_engine.base import CheckpointEngineRegistry
from verl.plugin.platform import PlatformBase, PlatformRegistry
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine, FSDPEngineWithValueHead

from tests.contract.expect import function_in, holds, source_of, takes
from verl_air.cpu.checkpoint_engine import GlooCheckpointEngine
from verl_air.cpu.engine import CpuEngineWithLMHead, CpuEngineWithValueHead
from verl_air.cpu.environment import install_vllm_alias
from verl_air.cpu.platform import PlatformCPU

TRANSFER = "verl_air/cpu/checkpoint_engine.py"


def test_a_platform_is_registered_by_name() -> None:
    assert PlatformRegistry.get("cpu") is PlatformCPU


def test_our_platform_answers_all_that_verl_asks() -> None:
    missing = sorted(PlatformCPU.__abstractmethods__)
    holds(not missing, f"PlatformBase asks for nothing new; it also asks for {missing}", used_by="cpu/platform.py")
    ours = {name for name, value in vars(PlatformCPU).items() if not name.startswith("_") and value is not None}
    unknown = sorted(name for name in ours if not hasattr(PlatformBase, name))
    holds(not unknown, f"PlatformBase still has {unknown}", used_by="verl_air/cpu/platform.py")
    PlatformCPU()


@pytest.mark.parametrize("backend", ["fsdp", "fsdp2"])
def test_engines_are_registered_by_device(backend: str) -> None:
    used_by = "verl_air/cpu/engine.py"
    for model_type, cls in (("language_model", CpuEngineWithLMHead), ("value_model", CpuEngineWithValueHead)):
        found = EngineRegistry.get_engine_cls(model_type, backend)
        holds(found is cls, f"the engine of {model_type}, {backend} on a CPU is ours; it is {found}", used_by=used_by)
    holds(issubclass(FSDPEngineWithValueHead, FSDPEngine), "the critic's engine is an FSDPEngine", used_by=used_by)


def test_verl_asks_for_the_distribution_vllm() -> None:
    install_vllm_alias()
    assert metadata.version("vllm"), "importlib.metadata does not ask our finder for `vllm`"


def test_vllm_packs_linear_weights_in_one_function() -> None:
    """Looked up in the module at each call, so that ours is found; vLLM itself is too slow to import here."""
    used_by = "verl_air/cpu/vllm_worker.py (keep_plain_weights)"
    gemm = function_in(source_of("vllm.model_executor.layers.utils"), "dispatch_cpu_unquantized_gemm")
    names = [argument.arg for argument in gemm.args.args]
    expected = ["layer", "remove_weight"]
    holds(names == expected, f"vLLM's {gemm.name} takes {expected}; it takes {names}", used_by=used_by)
    holds("layer.cpu_linear = " in ast.unparse(gemm), "it leaves the product in layer.cpu_linear", used_by=used_by)


def test_vllms_worker_extension_is_made_with_keywords() -> None:
    name = "vLLMColocateWorkerExtension.__new__"
    arguments = function_in(source_of("verl.workers.rollout.vllm_rollout.utils"), name).args
    only_keywords = [argument.arg for argument in arguments.args] == ["cls"] and arguments.kwarg is not None
    holds(only_keywords, f"{name} takes keywords only", used_by="verl_air/cpu/vllm_worker.py")


def test_our_weight_transfer_is_registered_and_answers_all_that_verl_asks() -> None:
    assert CheckpointEngineRegistry.get("gloo") is GlooCheckpointEngine
    missing = sorted(GlooCheckpointEngine.__abstractmethods__)
    holds(not missing, f"CheckpointEngine asks for nothing new; it also asks for {missing}", used_by=TRANSFER)


def test_rays_table_of_actors_says_what_they_died_of() -> None:
    from ray._private.state import GlobalState, actors
    from ray.core.generated.common_pb2 import ActorDeathCause, ActorDiedErrorContext

    used_by = "verl_air/training/actor_watch.py"
    takes(actors, "actor_id", "job_id", "actor_state_name", used_by=used_by)
    entry = ast.unparse(function_in(source_of("ray._private.state"), f"{GlobalState.__name__}._gen_actor_info"))
    for key in ("'DeathCause'", "'ActorClassName'", "'Pid'", "'JobID'"):
        holds(key in entry, f"an actor's entry has {key}", used_by=used_by)
    fields = set(ActorDeathCause.DESCRIPTOR.fields_by_name)
    holds("error_message" in ActorDiedErrorContext.DESCRIPTOR.fields_by_name, "and words for it", used_by=used_by)
    holds({"oom_context", "actor_died_error_context"} <= fields, "a death has a cause", used_by=used_by)
    holds("WORKER_DIED" in ActorDiedErrorContext.Reason.keys(), "WORKER_DIED is one of them", used_by=used_by)  # noqa: SIM118
