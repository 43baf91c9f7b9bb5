"""Dispersion within meta-groups: its geometry, and the hidden states it is taken of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.dispersion.__main__ import main
from studies.dispersion.measure import dispersion_of, mean_with_interval, paired_difference, prompt_states
from verl_air.data.schema import read_rows
from verl_air.errors import ConfigError, DataError

pytestmark = pytest.mark.exhaustive

SEEDS = st.integers(0, 2**32 - 1)


def sample(seed: int) -> tuple[np.ndarray, list[str], np.random.Generator]:
    """Up to 8 meta-groups of up to 6 prompts, the first of at least two, in any order."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 7, size=rng.integers(1, 9))
    sizes[0] += 1
    groups = [f"z{z}" for z, size in enumerate(sizes) for _ in range(size)]
    order = rng.permutation(len(groups))
    hidden_SD = rng.normal(size=(len(groups), 5)) * rng.uniform(0.1, 50)
    return hidden_SD, [groups[i] for i in order], rng


@settings(deadline=None)
@given(seed=SEEDS)
def test_it_is_the_plain_calculation(seed: int) -> None:
    hidden_SD, groups, _ = sample(seed)
    found = dispersion_of(hidden_SD, groups)
    expected = {}
    for name in set(groups):
        rows = [row for row, group in zip(hidden_SD, groups, strict=True) if group == name]
        if len(rows) > 1:
            centre = sum(rows) / len(rows)
            expected[name] = sum(float(np.sqrt(((row - centre) ** 2).sum())) for row in rows) / len(rows)
    assert dict(zip(found.groups, found.absolute_Z, strict=True)) == pytest.approx(expected)
    centre = hidden_SD.mean(axis=0)
    overall = float(np.mean([np.sqrt(((row - centre) ** 2).sum()) for row in hidden_SD]))
    assert found.relative_Z == pytest.approx(found.absolute_Z / overall)


@settings(deadline=None)
@given(seed=SEEDS)
def test_moving_and_turning_change_nothing_and_stretching_stretches(seed: int) -> None:
    hidden_SD, groups, rng = sample(seed)
    turn_DD, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    before = dispersion_of(hidden_SD, groups)
    moved = dispersion_of(hidden_SD @ turn_DD + rng.normal(size=5) * 10, groups)
    assert moved.absolute_Z == pytest.approx(before.absolute_Z, rel=1e-6)
    stretched = dispersion_of(3 * hidden_SD, groups)
    assert stretched.absolute_Z == pytest.approx(3 * before.absolute_Z)
    assert stretched.relative_Z == pytest.approx(before.relative_Z)


@settings(deadline=None)
@given(seed=SEEDS)
def test_the_order_of_prompts_does_not_matter(seed: int) -> None:
    hidden_SD, groups, rng = sample(seed)
    order = rng.permutation(len(groups))
    before, after = dispersion_of(hidden_SD, groups), dispersion_of(hidden_SD[order], [groups[i] for i in order])
    assert after.groups == before.groups
    assert after.absolute_Z == pytest.approx(before.absolute_Z)


@settings(deadline=None)
@given(seed=SEEDS)
def test_pulling_prompts_to_their_centroid_makes_it_smaller(seed: int) -> None:
    """Half way, half the distance; all the way, none. A prompt far off in another meta-group changes nothing."""
    hidden_SD, groups, _ = sample(seed)
    names = np.array(groups)
    centres_SD = np.stack([hidden_SD[names == name].mean(axis=0) for name in groups])
    before = dispersion_of(hidden_SD, groups)
    assert dispersion_of((hidden_SD + centres_SD) / 2, groups).absolute_Z == pytest.approx(before.absolute_Z / 2)
    assert dispersion_of(centres_SD, groups).absolute_Z == pytest.approx(0 * before.absolute_Z, abs=1e-9)
    far = dispersion_of(np.vstack([hidden_SD, np.full(5, 1e3)]), [*groups, "elsewhere"])
    assert far.absolute_Z == pytest.approx(before.absolute_Z)


def test_random_groups_are_as_far_apart_as_any_prompts() -> None:
    """Relative dispersion of groups without meaning: sqrt(1 - 1/n) of the overall, n prompts per group."""
    rng = np.random.default_rng(0)
    found = dispersion_of(rng.normal(size=(2000, 64)), [f"z{i % 400}" for i in range(2000)])
    assert found.unrelated == pytest.approx((1 - 1 / 5) ** 0.5)
    assert found.relative_Z.mean() == pytest.approx(found.unrelated, abs=0.01)


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(DataError, match="two prompts"):
        dispersion_of(np.eye(3), ["a", "b", "c"])
    with pytest.raises(DataError, match="not finite"):
        dispersion_of(np.array([[np.nan], [1.0]]), ["a", "a"])
    with pytest.raises(DataError, match="different meta-groups"):
        paired_difference(dispersion_of(np.eye(2), ["a", "a"]), dispersion_of(np.eye(2), ["b", "b"]), relative=True)


def test_the_interval_covers() -> None:
    rng = np.random.default_rng(1)
    estimates = [mean_with_interval(rng.gamma(4.0, 2.0, size=48)) for _ in range(500)]
    covered = np.mean([e.low is not None and e.high is not None and e.low <= 8.0 <= e.high for e in estimates])
    assert covered == pytest.approx(0.95, abs=0.03)


def test_states_do_not_depend_on_their_batch(playground_files: Path) -> None:
    prompts = [row["prompt"] for row in read_rows(playground_files / "id.parquet")][:13]
    one = prompt_states(playground_files / "model", prompts, batch_size=1)
    many = prompt_states(playground_files / "model", prompts, batch_size=13)
    assert one.shape == (13, 64)
    assert many == pytest.approx(one, abs=1e-5)
    assert np.abs(one[0] - one[1]).max() > 1e-3


def test_the_state_is_the_one_that_the_next_token_is_read_from(playground_files: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = playground_files / "model"
    prompt = next(read_rows(playground_files / "id.parquet"))["prompt"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.inference_mode():
        expected_V = model(**{k: ids[k] for k in ("input_ids", "attention_mask")}).logits[0, -1]
        state = torch.tensor(prompt_states(folder, [prompt])[0], dtype=torch.float32)
        found_V = model.lm_head(state)
    assert found_V.numpy() == pytest.approx(expected_V.numpy(), abs=1e-4)
    with pytest.raises(ConfigError, match="layers 0"):
        prompt_states(folder, [prompt], layer=9)


def test_the_command_line(playground_files: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model, file = str(playground_files / "model"), str(playground_files / "id.parquet")
    assert main([model, model, "--data", file, "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "playground/id, relative: " in printed
    assert "48 meta-groups (unrelated prompts: 0.894); minus the first model's: +0 [+0, +0]" in printed
    assert main(["nowhere", "--data", file]) == 2
    assert "dispersion: nowhere" in capsys.readouterr().err
