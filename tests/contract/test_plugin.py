"""``verl_air/plugin.py``: how verl finds us, and the modules behind whose import we register things."""

from __future__ import annotations

import asyncio
import pickle
import re
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray import cloudpickle
from wrapt import FunctionWrapper

from tests.conftest import ROOT
from tests.contract.expect import holds, takes, text_of
from tests.test_house import PACKAGE, files, imported
from verl_air.plugin import SUPPORTED_VERL
from verl_air.training import vllm_patches


def test_the_version_that_these_tests_describe_is_installed() -> None:
    found = version("verl")
    assert found in SUPPORTED_VERL, "read verl's changes, fix what tests/contract reports, then add the version"


def test_our_entry_point_is_in_the_group_that_verl_loads() -> None:
    found = {point.name: point.value for point in entry_points(group="verl.plugins")}
    assert found.get("verl_air") == "verl_air.plugin", f"the installed verl-air names {found}: pip install -e . again"


def test_the_docs_name_every_file_that_leans_on_verl() -> None:
    """The one list of private seams, docs/how_it_works.md, is complete and names nothing else."""
    text = (ROOT / "docs" / "how_it_works.md").read_text().split("## What we rely on in verl")[1].split("\n## ")[0]
    named = set()
    for row in re.findall(r"^\| (`verl_air[^|]*) \|", text, flags=re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", row)
        named |= {first, *(f"{Path(first).parent}/{other}" for other in others)}
    leaning = {"verl_air/compose.py", "verl_air/training/run_folder.py"}  # by a path and by attributes
    for file in files(PACKAGE):
        roots = {name.split(".")[0] for name in imported(file)}
        if roots & {"verl", "ray", "transfer_queue", "vllm"} or "wrap_function_wrapper(" in file.read_text():
            leaning.add(str(file.relative_to(ROOT)))
    assert leaning == named


def test_register_trainer() -> None:
    from verl.trainer.ppo.v1.trainer_base import get_trainer_cls

    from verl_air.training.trainer import TRAINERS

    for mode, cls in TRAINERS.items():
        assert get_trainer_cls(f"air_{mode}") is cls
        stock = get_trainer_cls(mode)
        holds(issubclass(cls, stock), f"{mode!r} names the trainer we extend", used_by="training/trainer.py")


def test_recipes_are_checked_before_anything_starts() -> None:
    """main_ppo calls validate_config first, and took it from verl.utils.config, so it holds our wrapped one."""
    from verl.trainer import main_ppo
    from verl.utils.config import validate_config

    used_by = "verl_air/plugin.py (_check_recipes_first)"
    assert isinstance(validate_config, FunctionWrapper), "our check is not in front of verl's validate_config"
    assert isinstance(main_ppo.validate_config, FunctionWrapper), "main_ppo holds an unwrapped validate_config"
    takes(validate_config.__wrapped__, "config", "use_reference_policy", "use_critic", used_by=used_by)


def test_main_ppo_starts_ray_with_the_recipes_variables() -> None:
    used_by = "verl_air/training/redaction.py (protect)"
    text = text_of("verl.trainer.main_ppo", "run_ppo")
    for code in ("runtime_env_kwargs = ray_init_kwargs.get('runtime_env', {})", "ray.init(**OmegaConf.to_container("):
        holds(code in text, f"run_ppo holds {code!r}", used_by=used_by)
    text = text_of("verl.trainer.main_ppo", "TaskRunnerV1.run")
    places = [text.find(code) for code in ("import get_trainer_cls", "get_trainer_cls(", "pprint(OmegaConf.to_cont")]
    holds(-1 not in places and places == sorted(places), "trainers are found before the print", used_by=used_by)
    text = text_of("verl.trainer.ppo.v1.trainer_base", "PPOTrainer.fit")
    holds("config=OmegaConf.to_container(" in text, "trackers get the config as `config`", used_by=used_by)


@pytest.mark.parametrize("end", ["BucketedWeightSender", "BucketedWeightReceiver"])
def test_a_run_has_a_weight_socket_of_its_own(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends of one run meet, two runs with one Ray job id do not, and a plain run keeps verl's name."""
    module = import_module("verl.workers.rollout.vllm_rollout.bucketed_weight_transfer")
    verls = "ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-0.sock"
    names = {}
    for run in ("", "run1", "run2"):
        monkeypatch.setenv("VERL_AIR_RUN", run)
        device = {"device": torch.device("cpu")} if end == "BucketedWeightReceiver" else {}
        names[run] = getattr(module, end)(zmq_handle=verls, **device).zmq_handle
    assert names == {run: verls.replace("zmq-", f"zmq-{run}-" if run else "zmq-") for run in names}
    used_by = "verl_air/training/vllm_patches.py"
    for name, where in (
        ("vllm_rollout", "ServerAdapter.__init__"),
        ("utils", "vLLMColocateWorkerExtension._get_zmq_handle"),
    ):
        text = text_of(f"verl.workers.rollout.vllm_rollout.{name}", where)
        holds("f'ipc:///tmp/rl-colocate-zmq-{" in text, f"{where} names the socket so", used_by=used_by)


@pytest.mark.parametrize("run", ["", "run1"])
async def test_a_vllm_server_of_a_run_of_ours_ends_with_its_engine(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.engine.async_llm import AsyncLLM

    used_by = "verl_air/training/vllm_patches.py"
    text = text_of("verl.workers.rollout.vllm_rollout.vllm_async_server", "vLLMHttpServer.run_server")
    holds("self.engine = engine_client" in text, "run_server sets the engine", used_by=used_by)
    ours = import_module("verl.workers.rollout.vllm_rollout.vllm_async_server").vLLMHttpServer.run_server
    assert vllm_patches.__name__ in ours.__globals__["__name__"]
    assert pickle.loads(cloudpickle.dumps(ours)) is ours, "else Ray's actor would run verl's own"
    holds(isinstance(AsyncLLM.errored, property), "an engine says whether it has died", used_by=used_by)

    class Server:
        async def run_server(self) -> None:
            self.engine = SimpleNamespace(errored=True)

    ended: list[int] = []
    module: Any = SimpleNamespace(vLLMHttpServer=Server)
    monkeypatch.setenv("VERL_AIR_RUN", run)
    monkeypatch.setattr(vllm_patches.os, "_exit", ended.append)
    vllm_patches.end_servers_with_engines(module)
    await module.vLLMHttpServer().run_server()
    await asyncio.sleep(0.01)
    assert ended == ([1] if run else [])


def test_process_groups_are_made_by_the_function_that_we_wrap() -> None:
    from verl.utils import distributed
    from verl.workers import engine_workers

    wrapped = distributed.initialize_global_process_group_ray
    used_by = "verl_air/cpu/platform.py (use_single_backend)"
    assert isinstance(wrapped, FunctionWrapper)
    takes(wrapped.__wrapped__, "timeout_second", "backend", used_by=used_by)
    holds(
        isinstance(engine_workers.initialize_global_process_group_ray, FunctionWrapper),
        "TrainingWorker takes initialize_global_process_group_ray from verl.utils.distributed",
        used_by=used_by,
    )
