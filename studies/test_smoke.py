"""Each study still runs, as far as seconds show it; the rest of their tests are in the exhaustive suite."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from studies.dispersion.__main__ import main as dispersion
from studies.experiment.__main__ import main as experiment
from studies.gradient.__main__ import compare
from studies.gradient.__main__ import main as gradient
from studies.scaling.__main__ import main as scaling
from studies.transfer.__main__ import main as transfer
from verl_air.playground.build import PlaygroundConfig, build_playground
from verl_air.playground.model import WarmStartConfig

HERE = Path(__file__).parent


def test_the_pages_of_the_experiment_are_made_from_its_records_alone(tmp_path: Path) -> None:
    """Byte for byte, and whatever the recipes have become."""
    folder = HERE / "experiment"
    for name in ("plan.yaml", "records.jsonl"):
        shutil.copy(folder / name, tmp_path)
    assert experiment([str(tmp_path / "plan.yaml"), "--report"]) == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {name: (folder / name).read_bytes() for name in written}
    assert len(written) == 7


def test_the_model_of_scaling(capsys: pytest.CaptureFixture[str]) -> None:
    """The rows of 8 GPUs by weak scaling, and the assumptions, are those of the stored results."""
    stored = (HERE / "scaling" / "results.txt").read_text()
    assert scaling(["--assumptions"]) == 0
    assert stored.startswith(capsys.readouterr().out)
    assert scaling(["--gpus", "8", "--settings-gpus", "4", "--fixed-intents", "24"]) == 0
    weak = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert len(weak) == 5
    assert {" ".join(line.split()) for line in weak} <= {" ".join(line.split()) for line in stored.splitlines()}


def test_dispersion_of_an_untrained_model(playground_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispersion([str(playground_files / "model"), "--data", str(playground_files / "ood.parquet")]) == 0
    assert re.search(
        r"playground/ood, relative: 0\.\d+ \[.*\], 48 meta-groups \(unrelated prompts: 0\.894\)",
        capsys.readouterr().out,
    )


def test_transfer_between_framings_of_a_small_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warm_start = WarmStartConfig(steps=2, anchors=2, opens=2, judgements=2, warm_up=1)
    world = PlaygroundConfig(setting="hidden", train=8, held_out=4, warm_start=warm_start)
    build_playground(tmp_path / "world", world, progress=None)
    assert transfer([str(tmp_path / "world"), "--steps", "1", "--repeats", "1"]) == 0
    table = capsys.readouterr().out.splitlines()[1:]
    assert table[0] == "hidden: 1 worlds, anchors 0.00"
    assert [row.split("|")[1].strip() for row in table[3:]] == ["turns", "table", "spelled", "numbered", "all four"]


def test_the_auxiliary_gradient_of_one_step(playground_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gradient([str(playground_files), "--steps", "1", "--phases", "1", "--gap", "signed"]) == 0
    printed = capsys.readouterr().out
    assert "| multiple_choice | 1-1 | " in printed
    assert re.search(r"Share of auxiliary weights that are zero, by phase: \d\.\d\d", printed)


def test_shares_and_cosines() -> None:
    right, up = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    nothing = torch.zeros(2)
    found = compare({"polite": (right, up), "story": (nothing, -right), "all": (right, up - right)})
    assert (found["share/polite"], found["own/polite"]) == (0.25, 0.0)
    assert (found["share/story"], found["step/story"]) == (1.0, -1.0)
    assert "own/story" not in found
