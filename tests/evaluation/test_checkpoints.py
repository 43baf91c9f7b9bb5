"""Finding the model in what verl leaves, shards included."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from verl_air.errors import DataError
from verl_air.evaluation.checkpoints import model_folder, step_of


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_a_hugging_face_folder_is_itself(tmp_path: Path) -> None:
    folder = touch(tmp_path / "model", "config.json", "model-00001-of-00002.safetensors")
    assert model_folder(folder) == folder


def test_a_model_saved_whole_is_found_from_the_run_its_checkpoints_or_the_step(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (20, 100):
        touch(run / "checkpoints" / f"global_step_{step}" / "actor" / "huggingface", "config.json", "model.safetensors")
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("100\n")
    last = run / "checkpoints" / "global_step_100" / "actor" / "huggingface"
    for path in (run, run / "checkpoints", run / "checkpoints" / "global_step_100", last.parent, last):
        assert model_folder(path) == last
    assert model_folder(run / "checkpoints" / "global_step_20").parent.parent.name == "global_step_20"
    assert (step_of(last), step_of(tmp_path)) == (100, 0)


@pytest.mark.parametrize("names", [("config.json",), ("model.safetensors",), ()])
def test_half_a_model_is_none(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="no model"):
        model_folder(touch(tmp_path / "half", *names))


def test_the_best_checkpoint_the_last_and_any_step(tmp_path: Path) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    for folder in ("best/global_step_20", "global_step_60", "global_step_100"):
        touch(checkpoints / folder / "actor" / "huggingface", "config.json", "model.safetensors")
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("100")
    touch(checkpoints / "global_step_20", "data.pt")  # what verl leaves of a checkpoint that it removes
    best = {"global_step": 20, "metric": "val-core/safety/id/group_acc", "value": 0.7, "mode": "max"}
    (checkpoints / "best_checkpoint.json").write_text(json.dumps(best))
    found = [step_of(model_folder(path, which)) for path in (tmp_path / "run", checkpoints) for which in WHICH]
    assert found == [20, 100, 60] * 2


WHICH = ("best", "last", "60")


@pytest.mark.parametrize(
    ("which", "files", "message"),
    [
        ("last", {"latest_checkpointed_iteration.txt": "7"}, r"global_step_7 is not there; .* \[20\]"),
        ("best", {"best_checkpoint.json": '{"global_step": 7}'}, "global_step_7 is not there"),
        ("best", {"best_checkpoint.json": "{}"}, "names no global_step"),
        ("best", {}, "no best_checkpoint.json"),
        ("last", {}, "no latest_checkpointed_iteration.txt"),
        ("8", {}, "global_step_8 is not there"),
        ("newest", {}, "best, last, or a step"),
    ],
)
def test_a_checkpoint_that_is_not_there(tmp_path: Path, which: str, files: dict[str, str], message: str) -> None:
    touch(tmp_path / "global_step_20" / "actor" / "huggingface", "config.json", "model.safetensors")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        model_folder(tmp_path, which)


def test_a_model_folder_has_no_best_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no checkpoints"):
        model_folder(touch(tmp_path / "model", "config.json", "model.safetensors"), "best")


@pytest.mark.slow
def test_shards_are_merged_by_verls_own_merger_once(playground_files: Path, tmp_path: Path) -> None:
    """A checkpoint as verl's FSDP engine leaves it on one rank; the merged weights are the saved ones."""
    import torch
    from transformers import AutoModelForCausalLM

    actor = tmp_path / "global_step_5" / "actor"
    source = playground_files / "model"
    shutil.copytree(source, actor / "huggingface", ignore=shutil.ignore_patterns("*.safetensors"))
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": 1}))
    saved = {name: value + 1.0 for name, value in AutoModelForCausalLM.from_pretrained(source).state_dict().items()}
    torch.save(saved, actor / "model_world_size_1_rank_0.pt")
    merged = model_folder(tmp_path / "global_step_5")
    assert (merged, step_of(merged)) == (actor / "merged", 5)
    # The merger stores bfloat16, as for a served model.
    found = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).state_dict()
    assert found.keys() == saved.keys()
    assert all(torch.allclose(found[name], saved[name], rtol=1e-2) for name in saved)
    assert (merged / "tokenizer_config.json").is_file()
    before = (merged / "model.safetensors").stat().st_mtime_ns
    assert model_folder(tmp_path / "global_step_5") == merged
    assert (merged / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_merger_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    actor = touch(tmp_path / "actor", "model_world_size_1_rank_0.pt")
    with pytest.raises(DataError, match="model merger failed"):
        model_folder(tmp_path)
    assert sorted(path.name for path in actor.iterdir()) == ["model_world_size_1_rank_0.pt"]
