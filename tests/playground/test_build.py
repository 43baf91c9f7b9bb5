import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from verl_air.errors import DataError
from verl_air.playground import build, quickstart
from verl_air.playground.__main__ import main
from verl_air.playground.build import PlaygroundConfig, build_playground
from verl_air.playground.framings import FRAMINGS
from verl_air.playground.model import WarmStartConfig

BRIEF = PlaygroundConfig(
    train=8, held_out=4, warm_start=WarmStartConfig(steps=3, anchors=2, opens=2, judgements=2, warm_up=1)
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "playground"
    build_playground(folder, BRIEF, progress=None)
    return folder


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    """A finished folder of the test's own."""
    return Path(shutil.copytree(built, tmp_path / "playground"))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and content of every file: the inode distinguishes a rebuilt file from a kept one."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes()) for path in files}


def test_the_folder_is_complete_and_explains_itself(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    assert [path.name for path in built.parent.iterdir()] == ["playground"]
    assert manifest["settings"]["seed"] == 0
    assert manifest["sizes"]["rows"] == {"train": 48, "id": 20, "ood": 20}
    assert {"anchor", "format", "harmful/authority", "benign/override"} <= set(manifest["measured"])
    assert "torch" in manifest["versions"]
    model = AutoModelForCausalLM.from_pretrained(built / "model")
    tokenizer = AutoTokenizer.from_pretrained(built / "model")
    assert model.config.vocab_size == len(tokenizer) == manifest["sizes"]["vocabulary"]


def test_a_build_after_a_killed_one_is_the_same_and_puts_torchs_threads_back(built: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    (tmp_path / ".playground.partial" / "model").mkdir(parents=True)
    (tmp_path / ".playground.partial" / "stray").write_text("")
    torch.set_num_threads(2)
    manifest = build_playground(tmp_path / "playground", BRIEF, progress=None)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert [path.name for path in tmp_path.iterdir()] == ["playground"]
    one, other = (
        {name: content for name, (_, content) in snapshot(folder).items()}
        for folder in (built, tmp_path / "playground")
    )
    assert json.loads(one.pop("manifest.json"))["measured"] == manifest["measured"]
    del other["manifest.json"]
    assert one == other


def test_a_finished_folder_is_kept_and_another_seed_replaces_it(out: Path) -> None:
    first = snapshot(out)
    assert build_playground(out, BRIEF, progress=None) == json.loads(first["manifest.json"][1])
    assert snapshot(out) == first
    assert build_playground(out, replace(BRIEF, seed=1), progress=None)["settings"]["seed"] == 1
    assert snapshot(out)["train.parquet"][1] != first["train.parquet"][1]
    assert [path.name for path in out.parent.iterdir()] == ["playground"]


@pytest.mark.parametrize("missing", ["manifest.json", "id.parquet"])
def test_a_damaged_folder_is_rebuilt(out: Path, missing: str) -> None:
    (out / missing).unlink()
    build_playground(out, BRIEF, progress=None)
    assert (out / missing).is_file()


def test_a_build_that_fails_leaves_the_finished_folder_alone(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> float:
        raise OSError("disk full")

    first = snapshot(out)
    monkeypatch.setattr(build, "warm_start", fail)
    with pytest.raises(OSError, match="disk full"):
        build_playground(out, PlaygroundConfig(seed=1), progress=None)
    assert snapshot(out) == first
    assert [path.name for path in out.parent.iterdir()] == ["playground"]


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


def test_the_other_setting_is_built_and_shown_by_its_framings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--train", "8", "--held-out", "4", "--steps", "2"]
    assert main(["--out", str(tmp_path / "playground"), "--setting", "hidden", *small]) == 0
    printed = capsys.readouterr()
    for framing in FRAMINGS["hidden"]:
        assert re.search(rf"^  {framing.name} +{framing.side} ", printed.out, re.MULTILINE)
    assert "the warm start did not succeed" in printed.err
    manifest = json.loads((tmp_path / "playground" / "manifest.json").read_text())
    assert manifest["settings"]["setting"] == "hidden"
    assert len(AutoTokenizer.from_pretrained(tmp_path / "playground" / "model")) == manifest["sizes"]["vocabulary"]


PROMPTS = [  # role, harmful, right before and after training
    ("anchor", True, (1, 1)),
    ("open", True, (0, 1)),
    ("anchor", False, (1, 1)),
    ("open", False, (1, 0)),
]


def test_the_table_compares_the_first_validation_with_the_last(tmp_path: Path) -> None:
    for index, step in enumerate((0, 40)):
        same = {"output": "x", "score": 1.0, "abstained": 0.0, "domain": "playground", "split": "id"}
        rows = [
            {
                **same,
                "input": f"{role} {harmful}",
                "acc": float(right[index]),
                "intent_id": f"intent-{harmful}",
                "role": role,
                "context": role,
                "extras": json.dumps({"harmful": harmful}),
            }
            for role, harmful, right in PROMPTS
        ]
        (tmp_path / f"{step}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cells = {line[2:40].strip(): line[40:].split() for line in quickstart.before_and_after(tmp_path).splitlines()[2:7]}
    assert cells == {
        "anchors right": ["100.0%", "100.0%"],
        "open variants right": ["50.0%", "50.0%"],
        "of harmful intents (refused)": ["0.0%", "100.0%"],
        "of benign intents (helped)": ["100.0%", "0.0%"],
        "intents right in every prompt": ["50.0%", "50.0%"],
    }


def test_a_recipe_that_is_not_there_is_one_line_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quickstart.main(["--out", str(tmp_path / "run"), "--recipe", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("quickstart: no recipe 'nowhere' in ")
    assert not (tmp_path / "run").exists()
