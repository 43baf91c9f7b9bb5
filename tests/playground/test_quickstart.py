import json
from pathlib import Path

import pytest

from verl_air.playground import quickstart

PROMPTS = [  # role, harmful, right before and after training
    ("anchor", True, (1, 1)),
    ("open", True, (0, 1)),
    ("anchor", False, (1, 1)),
    ("open", False, (1, 0)),
]


def test_the_table_compares_the_first_validation_with_the_last(tmp_path: Path) -> None:
    for index, step in enumerate((0, 40)):
        rows = [
            {
                "input": f"{role} {harmful}",
                "output": "x",
                "score": 1.0,
                "acc": float(right[index]),
                "abstained": 0.0,
                "intent_id": f"intent-{harmful}",
                "role": role,
                "context": role,
                "domain": "playground",
                "split": "id",
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
