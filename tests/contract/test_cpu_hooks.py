"""``verl_air/cpu``: the places where verl and vLLM ask what hardware they run on."""

from __future__ import annotations

import ast
import importlib.metadata as metadata

from verl.plugin.platform import PlatformBase, PlatformRegistry
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine, FSDPEngineWithLMHead, FSDPEngineWithValueHead

from tests.contract.expect import function_in, holds, source_of, takes, text_of
from verl_air.cpu.engine import CpuEngineWithLMHead, CpuEngineWithValueHead
from verl_air.cpu.environment import install_vllm_alias
from verl_air.cpu.platform import PlatformCPU


def test_a_platform_is_registered_by_name() -> None:
    takes(PlatformRegistry.register, "platform", used_by="verl_air/cpu/platform.py")
    assert PlatformRegistry.get("cpu") is PlatformCPU


def test_our_platform_answers_all_that_verl_asks() -> None:
    missing = sorted(PlatformCPU.__abstractmethods__)
    holds(not missing, f"PlatformBase asks for nothing new; it also asks for {missing}", used_by="cpu/platform.py")
    ours = {name for name, value in vars(PlatformCPU).items() if not name.startswith("_") and value is not None}
    unknown = sorted(name for name in ours if not hasattr(PlatformBase, name))
    holds(not unknown, f"PlatformBase still has {unknown}", used_by="verl_air/cpu/platform.py")
    PlatformCPU()


def test_current_device_is_used_in_two_ways() -> None:
    """Both as ``tensor.to(device)`` and inside ``f"{name}:{device}"``; hence our odd string."""
    text = text_of("verl.utils.fsdp_utils")
    holds(
        "f'{get_device_name()}:{device_id}'" in text,
        "fsdp_utils formats the current device behind a colon",
        used_by="verl_air/cpu/platform.py (_CpuDevice)",
    )


def test_pretended_devices_are_called_gpu() -> None:
    text = text_of("verl.single_controller.ray.base")
    holds(
        "node_info.get('GPU', 0)" in text,
        "verl counts GPUs and NPUs only",
        used_by="cpu/platform.py (ray_resource_name)",
    )


def test_engines_are_registered_by_device() -> None:
    used_by = "verl_air/cpu/engine.py"
    takes(EngineRegistry.register, "model_type", "backend", "device", "vendor", used_by=used_by)
    for model_type, cls in (("language_model", CpuEngineWithLMHead), ("value_model", CpuEngineWithValueHead)):
        for backend in ("fsdp", "fsdp2"):
            found = EngineRegistry.get_engine_cls(model_type, backend)
            holds(
                found is cls, f"the engine of {model_type}, {backend} on a CPU is ours; it is {found}", used_by=used_by
            )


def test_engines_are_built_as_ours_expects() -> None:
    used_by = "verl_air/cpu/engine.py"
    takes(
        FSDPEngine.__init__, "model_config", "engine_config", "optimizer_config", "checkpoint_config", used_by=used_by
    )
    takes(FSDPEngineWithLMHead._build_fsdp_module, "module", used_by=used_by)
    holds(issubclass(FSDPEngineWithValueHead, FSDPEngine), "the critic's engine is an FSDPEngine", used_by=used_by)


def test_only_a_reference_policy_is_offloaded_with_pinned_memory() -> None:
    text = text_of("verl.workers.engine.fsdp.transformer_impl", "FSDPEngine._build_fsdp_module")
    holds(
        "if self.engine_config.offload_policy or self.engine_config.forward_only:" in text
        and "CPUOffloadPolicy(pin_memory=True)" in text,
        "a forward_only engine gets CPUOffloadPolicy(pin_memory=True), which needs an accelerator",
        used_by="verl_air/cpu/engine.py (_build_fsdp_module)",
    )


def test_two_back_ends_are_the_default_of_a_process_group() -> None:
    text = text_of("verl.utils.distributed", "initialize_global_process_group_ray")
    holds(
        "backend = backend or f'cpu:gloo,{get_device_name()}:{get_nccl_backend()}'" in text,
        "the default back end names the CPU and the device",
        used_by="verl_air/cpu/platform.py (use_single_backend)",
    )


def test_verl_asks_for_the_distribution_vllm() -> None:
    text = text_of("verl.third_party.vllm.__init__")
    holds("package_name = 'vllm'" in text, "verl looks up the version of `vllm`", used_by="verl_air/cpu/environment.py")
    install_vllm_alias()
    assert metadata.version("vllm"), "importlib.metadata does not ask our finder for `vllm`"


def test_vllm_packs_linear_weights_in_one_function() -> None:
    """Looked up in the module at each call, so that ours is found; vLLM itself is too slow to import here."""
    used_by = "verl_air/cpu/vllm_worker.py (keep_plain_weights)"
    tree = source_of("vllm.model_executor.layers.utils")
    gemm = function_in(tree, "dispatch_cpu_unquantized_gemm")
    names = [argument.arg for argument in gemm.args.args]
    holds(
        names == ["layer", "remove_weight"],
        f"vLLM's {gemm.name} takes (layer, remove_weight); it takes {names}",
        used_by=used_by,
    )
    holds("layer.cpu_linear = " in ast.unparse(gemm), "it leaves the product in layer.cpu_linear", used_by=used_by)


def test_vllms_worker_extension_is_made_with_keywords() -> None:
    tree = source_of("verl.workers.rollout.vllm_rollout.utils")
    new = function_in(tree, "vLLMColocateWorkerExtension.__new__")
    holds(
        [argument.arg for argument in new.args.args] == ["cls"] and new.args.kwarg is not None,
        "vLLMColocateWorkerExtension.__new__ takes keywords only",
        used_by="verl_air/cpu/vllm_worker.py",
    )
