"""A real run, killed and resumed, with secrets in its environment: they are in nothing that it leaves."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.runs.launch import KWARGS, NO_VALIDATION, ORACLE, SMALL, main_ppo, read_jsonl
from verl_air.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.exhaustive, pytest.mark.timeout(1200)]

CANARY = "canary-61d3e8a0"


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where Ray works and logs; its sockets want a short path."""
    folder = Path(tempfile.mkdtemp(prefix="va-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_secrets_are_nowhere_and_each_step_is_there_once(
    playground_files: Path, tmp_path: Path, ray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JUDGE_KEY", "WANDB_API_KEY", "HF_TOKEN", "PROJECT_OF_MINE"):
        monkeypatch.setenv(name, f"{CANARY}-{name}")
    monkeypatch.setenv("RAY_TMPDIR", str(ray_folder))
    monkeypatch.delenv("VERL_FILE_LOGGER_PATH", raising=False)
    folder = tmp_path / "run"
    options = (
        *(*SMALL, *ORACLE, *NO_VALIDATION, "trainer.save_freq=1", "trainer.resume_mode=auto"),
        "trainer.total_training_steps=3",
        f"++{KWARGS}.judge.api_key_env=JUDGE_KEY",
        "trainer.project_name=${oc.env:PROJECT_OF_MINE}",
        "+ray_kwargs.ray_init.runtime_env.env_vars.SETTING_OF_MINE=canary-for-ray",
    )
    main_ppo(folder, playground_files, *options, kill_in_step=3)
    first_log = (folder / "train.log").read_text(errors="replace")
    run = main_ppo(folder, playground_files, *options)

    assert [entry["step"] for entry in read_jsonl(folder / "metrics.jsonl")] == [1, 2, 3]
    assert main(["report", str(folder), "--out", str(folder / "report.html")]) == 0
    config = yaml.safe_load((folder / "checkpoints" / "config.yaml").read_text())
    assert config["trainer"]["project_name"] == "${oc.env:PROJECT_OF_MINE}"
    assert "main_ppo" in json.loads((folder / "checkpoints" / "run.json").read_text())["command"]

    left = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert any(path.name == "overrides.yaml" for path in left)
    left[Path("first start")] = first_log.encode()
    assert "'project_name': '${oc.env:PROJECT_OF_MINE}'" in run.log, "verl's print of the config"
    assert [str(path) for path, content in left.items() if b"canary-" in content] == []
    logs = [path for path in ray_folder.rglob("*") if path.is_file() and "logs" in path.parts]
    assert logs
    assert [str(path) for path in logs if CANARY.encode() in path.read_bytes()] == []
