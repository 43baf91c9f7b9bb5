import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from verl_air.training.run_folder import remember_command, write_run_record
from verl_air.training.metrics import validation_metrics


def rows(*accs: float, intent: str, split: str = "id") -> tuple[list[dict], list[str], list[float]]:
    roles = ["anchor"] + ["open"] * (len(accs) - 1)
    identities = [
        {"intent_id": intent, "role": role, "split": split, "domain": "toy", "index": index, "context": f"c{index}"}
        for index, role in enumerate(roles)
    ]
    return identities, [f"toy/{split}"] * len(accs), list(accs)


def test_a_group_with_one_wrong_prompt_is_wrong() -> None:
    nan = float("nan")
    parts = [
        rows(1.0, 1.0, 1.0, intent="a"),
        rows(1.0, 1.0, 0.0, intent="b"),
        rows(1.0, nan, 1.0, intent="c"),  # a row was abstained: no verdict on this group
        rows(0.0, 0.0, intent="a", split="ood"),
    ]
    identities, sources, accs = ([item for part in column for item in part] for column in zip(*parts, strict=True))
    metrics = validation_metrics(identities, sources, {"acc": accs})
    assert metrics["val-core/toy/id/acc"] == pytest.approx(7 / 8)
    assert metrics["val-core/toy/id/group_acc"] == pytest.approx(1 / 2)
    assert metrics["val-core/toy/id/anchor_acc"] == 1.0
    assert metrics["val-core/toy/id/abstain_rate"] == pytest.approx(1 / 9)
    assert metrics["val-core/toy/ood/group_acc"] == 0.0


def test_without_acc_or_identity_nothing_is_claimed() -> None:
    identities, sources, accs = rows(1.0, intent="a")
    assert validation_metrics(identities, sources, {"score": accs}) == {}
    assert validation_metrics([{}], sources, {"acc": accs}) == {}


def test_the_run_record_resolves_the_recipe_and_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["main_ppo.py", "a=1"])
    remember_command()
    write_run_record(OmegaConf.create({"a": 1, "b": "${a}"}), tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").read_text() == "a: 1\nb: 1\n"
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["command"].endswith("main_ppo.py a=1")
    assert record["versions"]["verl"] == "0.9.1"
