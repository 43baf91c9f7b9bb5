"""Each study still runs, as far as seconds show it; the rest of their tests are in the exhaustive suite."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from studies.dispersion.__main__ import main as dispersion
from studies.experiment.__main__ import main as experiment
from studies.scaling.__main__ import main as scaling

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
