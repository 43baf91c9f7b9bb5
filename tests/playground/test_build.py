import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from verl_air.errors import DataError
from verl_air.playground import build
from verl_air.playground.__main__ import main
from verl_air.playground.build import PlaygroundConfig, build_playground
from verl_air.playground.model import WarmStartConfig

BRIEF = PlaygroundConfig(
    train=8, held_out=4, warm_start=WarmStartConfig(steps=3, anchors=2, opens=2, judgements=2, warm_up=1)
)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and content of every file: the inode tells a rebuilt file from a kept one."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes()) for path in files}


def test_the_folder_is_whole_and_explains_itself(tmp_path: Path) -> None:
    manifest = build_playground(tmp_path / "playground", BRIEF, progress=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["playground"]
    assert manifest == json.loads((tmp_path / "playground" / "manifest.json").read_text())
    assert manifest["settings"]["seed"] == 0
    assert manifest["sizes"]["rows"] == {"train": 48, "id": 20, "ood": 20}
    assert {"anchor", "format", "harmful/authority", "benign/override"} <= set(manifest["measured"])
    assert "torch" in manifest["versions"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "playground" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "playground" / "model")
    assert model.config.vocab_size == len(tokenizer) == manifest["sizes"]["vocabulary"]


def test_two_folders_of_one_seed_are_the_same(tmp_path: Path) -> None:
    one, other = (build_playground(tmp_path / name, BRIEF, progress=None) for name in ("one", "other"))
    assert one["measured"] == other["measured"]
    contents = [
        {name: content for name, (_, content) in snapshot(tmp_path / folder).items() if name != "manifest.json"}
        for folder in ("one", "other")
    ]
    assert contents[0] == contents[1]


def test_a_finished_folder_is_kept_and_another_seed_replaces_it(tmp_path: Path) -> None:
    out = tmp_path / "playground"
    build_playground(out, BRIEF, progress=None)
    first = snapshot(out)
    build_playground(out, BRIEF, progress=None)
    assert snapshot(out) == first
    manifest = build_playground(
        out, PlaygroundConfig(seed=1, train=8, held_out=4, warm_start=BRIEF.warm_start), progress=None
    )
    assert manifest["settings"]["seed"] == 1
    assert snapshot(out)["train.parquet"][1] != first["train.parquet"][1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["playground"]


@pytest.mark.parametrize("missing", ["manifest.json", "id.parquet"])
def test_a_damaged_folder_is_redone(tmp_path: Path, missing: str) -> None:
    out = tmp_path / "playground"
    build_playground(out, BRIEF, progress=None)
    (out / missing).unlink()
    build_playground(out, BRIEF, progress=None)
    assert (out / missing).is_file()


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".playground.partial" / "model").mkdir(parents=True)
    (tmp_path / ".playground.partial" / "stray").write_text("")
    build_playground(tmp_path / "playground", BRIEF, progress=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["playground"]
    assert not (tmp_path / "playground" / "stray").exists()


def test_a_build_that_fails_leaves_the_finished_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "playground"
    build_playground(out, BRIEF, progress=None)
    first = snapshot(out)

    def fail(*_: object, **__: object) -> float:
        raise OSError("disk full")

    monkeypatch.setattr(build, "warm_start", fail)
    with pytest.raises(OSError, match="disk full"):
        build_playground(out, PlaygroundConfig(seed=1), progress=None)
    assert snapshot(out) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["playground"]


def test_a_folder_of_somebody_else_is_never_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DataError, match=r"thesis\.tex"):
        build_playground(tmp_path, BRIEF, progress=None)
    assert main(["--out", str(tmp_path)]) == 1
    assert "thesis.tex" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_impossible_sizes_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "playground"), "--train", "500"]) == 1
    assert capsys.readouterr().err == "playground: train=500, held_out=48: the world has only 256 intents\n"


def test_the_number_of_threads_is_put_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    build_playground(tmp_path / "playground", BRIEF, progress=None)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
