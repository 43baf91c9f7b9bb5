"""`make smollm2`, whole: a real chat model is fetched, data are built, three steps are trained, the table is shown."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="the model's file is read through the package gguf (extra smollm2)")

from tests.conftest import ROOT
from tests.data.support import SHARED, needs_shared
from tests.runs.launch import Run

pytestmark = [needs_shared, pytest.mark.slow, pytest.mark.verl_run, pytest.mark.exhaustive, pytest.mark.timeout(3000)]


def test_three_steps_and_the_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "verl_air.playground.smollm2", "--out", str(tmp_path), "--sources", str(SHARED)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert re.search(r"held-out intents +step 0 +step 3\nID: .*\n  anchors right +[\d.]+% +[\d.]+%", done.stdout)
    run = Run(tmp_path, done.returncode, done.stdout)
    for step in (1, 2, 3):
        run.assert_whole_groups(step)
        metrics = run.metrics()[step]
        assert metrics["training/rollout_probs_diff_max"] < 1e-3  # vLLM has the actor's weights
        assert math.isfinite(metrics["actor/grad_norm"])
        rows = run.rollouts(step)
        assert all(row["abstained"] == 0.0 for row in rows)  # the verdict words hold enough of the probability
        assert len({row["output"] for row in rows}) > len(rows) / 2
    assert any(row["air_weight"] != 0.0 for step in (1, 2, 3) for row in run.rollouts(step))
