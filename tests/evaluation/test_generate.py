"""Rollouts made and judged again: whole rows only, nothing lost or doubled, and never two settings in one file."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.support import write_jsonl
from verl_air.cli import evaluate, main
from verl_air.data.schema import make_row, read_rows, write_rows
from verl_air.errors import ConfigError, DataError
from verl_air.evaluation import accuracy_of, read_records
from verl_air.evaluation.generate import generate_rollouts, rejudge_rollouts
from verl_air.evaluation.rollout_store import RolloutStore, generated_file
from verl_air.evaluation.scoring import EvaluationSettings, merge_reward_kwargs, read_evaluation_settings
from verl_air.evaluation.vllm_generator import Completion, EncodedPrompt, GenerationRequest, SamplingSettings, seed_of
from verl_air.files import fingerprint
from verl_air.rewards import REWARD_KEYS, RewardError, Sample, register_reward

RULES = {"routes": {"lab/anchor": "multiple_choice", "lab/open": "refusal_keywords"}}
KINDER = {"routes": {"lab/anchor": "multiple_choice", "lab/open": {"name": "refusal_keywords", "keywords": ["sure"]}}}


class Parrot:
    """In vLLM's place, where only the order and number of rows matter: the response depends on the name alone."""

    def __init__(self, die_after: int = 1 << 30) -> None:
        self.die_after = die_after
        self.made: list[str] = []

    def prompt(self, messages: Any, where: str, max_tokens: int) -> EncodedPrompt:
        return EncodedPrompt((1, 2, 3), messages[0]["content"])

    def complete(
        self, requests: Iterator[GenerationRequest], sampling: SamplingSettings
    ) -> Iterator[tuple[int, Completion]]:
        """In an order that is not that of the rows."""
        words = ("A", "I'm sorry", "sure")
        for request in sorted(requests, key=lambda request: seed_of(0, request.name)):
            if len(self.made) == self.die_after:
                raise KeyboardInterrupt
            self.made.append(request.name)
            word = words[seed_of(sampling.seed, request.name) % 3]
            yield request.position, Completion(f"<think>so</think><answer>{word}</answer>", False)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("lab")
    rows = [
        make_row(
            prompt=f"{role} {z}",
            ground_truth="A" if role == "anchor" else "",
            intent_id=f"z{z}",
            role=role,
            context=role,
            domain="lab",
            split="id",
            index=2 * z + (role == "open"),
            extras=json.dumps({"choices": ["yes", "no"]}),
        )
        for z in range(4)
        for role in ("anchor", "open")
    ]
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    return {"model": folder / "model", "files": [write_rows(folder / "id.parquet", rows)]}


def generate(lab: Mapping[str, Any], out: Path, engine: Parrot, *, n: int = 3, **changes: Any) -> Path:
    sampling = SamplingSettings(**changes)
    return generate_rollouts(lab["model"], lab["files"], out, RULES, sampling, generator=lambda: engine, n=n)


@settings(max_examples=25, deadline=None)
@given(deaths=st.lists(st.integers(0, 12), max_size=5), cut=st.integers(0, 40))
def test_however_often_it_dies_the_file_is_the_same(
    lab: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, deaths: list[int], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("deaths")
    whole = generate(lab, folder / "whole.jsonl", Parrot()).read_bytes()
    parted = folder / "parted.jsonl"
    for after in deaths:
        try:
            generate(lab, parted, Parrot(after))
        except KeyboardInterrupt:
            for path in (parted, generated_file(parted)):  # and the machine with it, in the middle of a row
                with path.open("ab") as file:
                    file.write(whole[:cut].split(b"\n")[0])
    generate(lab, parted, Parrot())
    assert parted.read_bytes() == whole
    assert len(whole.splitlines()) == 4 * 2 * 3
    assert not generated_file(parted).exists(), "all is in one file"


def test_what_is_written_is_what_evaluation_reads(lab: dict[str, Any], tmp_path: Path) -> None:
    records = read_records(generate(lab, tmp_path / "out.jsonl", Parrot()))
    assert {(record.intent_id, record.role, record.domain, record.split) for record in records} == {
        (f"z{z}", role, "lab", "id") for z in range(4) for role in ("anchor", "open")
    }
    assert all(record.judged for record in records)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for row in rows:
        word = "I'm sorry" if row["role"] == "open" else "A"
        assert row["acc"] == float(word in row["output"]), row
        assert (row["group_size"], row["split_intents"]) == (2 * 3, 4)
    write_jsonl(tmp_path / "parted.jsonl", rows[:-1])
    found = accuracy_of(read_records(tmp_path / "parted.jsonl"))
    assert (found.intents, found.incomplete) == (4, 1)


def test_nothing_left_to_do_starts_no_engine(lab: dict[str, Any], tmp_path: Path) -> None:
    generate(lab, tmp_path / "out.jsonl", Parrot())
    again = Parrot()
    generate(lab, tmp_path / "out.jsonl", again)
    assert again.made == []


def test_an_attempt_that_failed_before_its_first_row_binds_nobody(lab: dict[str, Any], tmp_path: Path) -> None:
    class Broken(Parrot):
        def prompt(self, messages: Any, where: str, max_tokens: int) -> EncodedPrompt:
            raise DataError(f"{where}: does not fit; lower --max-tokens")

    with pytest.raises(DataError, match="does not fit"):
        generate(lab, tmp_path / "out.jsonl", Broken())
    out = generate(lab, tmp_path / "out.jsonl", Parrot(), temperature=0.5)
    assert out.read_bytes() == generate(lab, tmp_path / "new.jsonl", Parrot(), temperature=0.5).read_bytes()


@pytest.mark.parametrize(
    ("changes", "named"), [({"temperature": 0.5}, "sampling"), ({"seed": 1}, "sampling"), ({"n": 2}, "n")]
)
def test_other_settings_are_refused(lab: dict[str, Any], tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    out = generate(lab, tmp_path / "out.jsonl", Parrot())
    before = out.read_bytes()
    with pytest.raises(DataError, match=f"started with another {named}"):
        generate(lab, out, Parrot(), **changes)
    assert out.read_bytes() == before


def test_a_file_of_another_hand_is_left_alone(lab: dict[str, Any], tmp_path: Path) -> None:
    out = write_jsonl(tmp_path / "mine.jsonl", [{"precious": True}])
    with pytest.raises(DataError, match="not written by"):
        generate(lab, out, Parrot())
    assert json.loads(out.read_text()) == {"precious": True}


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    with RolloutStore(tmp_path / "out.jsonl", {}, 1), pytest.raises(DataError, match="another process"):
        RolloutStore(tmp_path / "out.jsonl", {}, 1)


def test_judging_again_changes_the_scores_and_nothing_else(lab: dict[str, Any], tmp_path: Path) -> None:
    source = generate(lab, tmp_path / "out.jsonl", Parrot())
    out = rejudge_rollouts(source, tmp_path / "again.jsonl", KINDER)
    scores = REWARD_KEYS
    for line, judged in zip(source.read_text().splitlines(), out.read_text().splitlines(), strict=True):
        old, new = json.loads(line), json.loads(judged)
        assert {k: v for k, v in old.items() if k not in scores} == {k: v for k, v in new.items() if k not in scores}
        if new["role"] == "open":
            assert new["acc"] == float("sure" in new["output"])
        else:
            assert new == old


def test_judging_again_in_another_response_style(lab: dict[str, Any], tmp_path: Path) -> None:
    """What was the right letter inside tags is none in `plain`, which has no format reward either."""
    source = generate(lab, tmp_path / "out.jsonl", Parrot())
    plain = rejudge_rollouts(source, tmp_path / "new.jsonl", {**RULES, "format": {"style": "plain"}})
    before, after = read_records(source), read_records(plain)
    assert any(rollout.acc for rollout in before if rollout.role == "anchor")
    assert not any(rollout.acc for rollout in after if rollout.role == "anchor")
    rows = [json.loads(line) for line in plain.read_text().splitlines()][1:]
    assert {row["format_reward"] for row in rows if "format_reward" in row} == {None}
    assert all(math.isfinite(rollout.score) for rollout in after)


def test_data_of_another_response_style_is_refused_before_a_model_is_loaded(
    lab: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(read_rows(lab["files"][0]))
    rows[0]["extra_info"]["extras"] = '{"style": "think"}'
    data, out = write_rows(tmp_path / "id.parquet", rows), tmp_path / "out.jsonl"
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_text("{}")
    arguments = ["evaluate", "--model", str(tmp_path / "model"), "--data", str(data), "--out", str(out)]
    assert main([*arguments, "--route", "lab/anchor=multiple_choice", "lab/open=refusal_keywords"]) == 2
    assert "prompts ask for the response style think, and reward_kwargs.format.style" in capsys.readouterr().err
    assert not out.exists()


def test_judging_again_goes_on_where_it_stopped(lab: dict[str, Any], tmp_path: Path) -> None:
    source = generate(lab, tmp_path / "out.jsonl", Parrot())
    whole = rejudge_rollouts(source, tmp_path / "whole.jsonl", KINDER).read_bytes()
    out = rejudge_rollouts(source, tmp_path / "again.jsonl", KINDER)
    out.write_bytes(whole[: len(whole) // 2])
    assert rejudge_rollouts(source, out, KINDER).read_bytes() == whole
    with pytest.raises(DataError, match="another rewards"):
        rejudge_rollouts(source, out, RULES)
    with pytest.raises(DataError, match="into itself"):
        rejudge_rollouts(source, source, RULES)


def test_a_judge_that_is_down_abstains(lab: dict[str, Any], tmp_path: Path) -> None:
    source = generate(lab, tmp_path / "out.jsonl", Parrot(), n=1)
    kwargs = merge_reward_kwargs(
        {"options": {"verdict_judge": {"template": "{answer}?"}}},
        routes=["lab/anchor=multiple_choice", "lab/open=verdict_judge"],
        judge=["base_url=http://127.0.0.1:9/v1", "attempts=1"],
    )
    records = read_records(rejudge_rollouts(source, tmp_path / "down.jsonl", kwargs))
    assert all(record.judged == (record.role == "anchor") for record in records)
    assert all(math.isnan(record.score) for record in records if record.role == "open")


BREAKS = {"routes": {"lab/anchor": "multiple_choice", "lab/open": "lab_breaks"}}


@register_reward("lab_breaks", reward_range=(0, 1))
def lab_breaks(sample: Sample) -> float:
    """A reward function with a fault that shows on some responses only."""
    if "sure" in sample.response:
        raise RewardError("it cannot count to three")
    return 1.0


def test_what_was_generated_is_there_when_scoring_fails(lab: dict[str, Any], tmp_path: Path) -> None:
    """The same command with other rewards scores it, and so does ``--rejudge``; no engine generates it again."""
    out, first = tmp_path / "out.jsonl", Parrot()
    with pytest.raises(RewardError, match="count to three"):
        generate_rollouts(lab["model"], lab["files"], out, BREAKS, SamplingSettings(), generator=lambda: first, n=3)
    scored, texts = out.read_text().splitlines(), generated_file(out).read_text().splitlines()
    assert len(texts) == len(first.made) > 0
    assert len(scored) < len(texts)
    assert all(json.loads(line)["output"] for line in texts)
    again = rejudge_rollouts(out, tmp_path / "again.jsonl", RULES)
    assert sorted(json.loads(line)["uid"] for line in again.read_text().splitlines()) == sorted(first.made)
    assert all(record.judged for record in read_records(again))


def test_rewards_may_change_until_a_row_is_scored(lab: dict[str, Any], tmp_path: Path) -> None:
    whole = generate(lab, tmp_path / "whole.jsonl", Parrot()).read_bytes()
    out = tmp_path / "out.jsonl"
    generate(lab, out, Parrot())
    rows = [{**json.loads(line), "acc": None, "_position": k} for k, line in enumerate(out.read_text().splitlines())]
    write_jsonl(generated_file(out), rows)
    out.write_text("")
    engine = Parrot()
    generate_rollouts(lab["model"], lab["files"], out, KINDER, SamplingSettings(), generator=lambda: engine, n=3)
    assert engine.made == []
    assert out.read_bytes() != whole
    assert "_position" not in out.read_text()
    assert [json.loads(line)["uid"] for line in out.read_text().splitlines()] == [row["uid"] for row in rows]


def test_rows_are_scored_while_others_are_generated(lab: dict[str, Any], tmp_path: Path) -> None:
    """A generator that waits until its earlier rows are on disk, scored, ends."""
    out = tmp_path / "out.jsonl"

    class Waiting(Parrot):
        def complete(
            self, requests: Iterator[GenerationRequest], sampling: SamplingSettings
        ) -> Iterator[tuple[int, Completion]]:
            for n, made in enumerate(super().complete(requests, sampling)):
                until = time.monotonic() + 20
                while len(out.read_text().splitlines()) < n:
                    assert time.monotonic() < until, "not scored while generating"
                    time.sleep(0.005)
                yield made

    generate(lab, out, Waiting())


def test_a_judge_is_asked_before_anything_is_generated(lab: dict[str, Any], tmp_path: Path) -> None:
    kwargs = {
        "routes": {"lab/anchor": "multiple_choice", "lab/open": "verdict_judge"},
        "options": {"verdict_judge": {"template": "{answer}?"}},
        "judge": {"base_url": "http://127.0.0.1:9/v1", "attempts": 1},
    }
    engine = Parrot()
    arguments = (lab["model"], lab["files"], tmp_path / "out.jsonl")
    with pytest.raises(ConfigError, match="'verdict_judge', which scores lab/id, gives no verdict"):
        generate_rollouts(*arguments, kwargs, SamplingSettings(), generator=lambda: engine)
    rules = {"routes": {"lab/anchor": "multiple_choice"}}
    with pytest.raises(RewardError, match="no route for data_source 'lab/id'"):
        generate_rollouts(*arguments, rules, SamplingSettings(), generator=lambda: engine)
    assert engine.made == []


def test_all_lengths_are_checked_before_anything_is_generated(lab: dict[str, Any], tmp_path: Path) -> None:
    class Short(Parrot):
        def prompt(self, messages: Any, where: str, max_tokens: int) -> EncodedPrompt:
            if messages[0]["content"] == "open 3":
                raise DataError(f"{where}: does not fit")
            return super().prompt(messages, where, max_tokens)

    with pytest.raises(DataError, match="id0-7: does not fit"):
        generate(lab, tmp_path / "out.jsonl", engine := Short())
    assert engine.made == []


def test_progress_says_how_fast_and_how_long(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(evaluate, "EVERY_SECONDS", 0.0)
    with evaluate.shown_progress(sys.stderr) as show:
        show(10, 30)
        time.sleep(0.1)
        for done in (10, 11, 20, 30):
            show(done, 30)
    shown = capsys.readouterr().err
    assert shown.strip().startswith("10 of 30 rollouts")
    for line in (r"11 of 30 rollouts, +\S+ rows/s, 00:0\d left", r"30 of 30 rollouts, +\S+ rows/s, 00:00 left"):
        assert re.search(line, shown)


def test_trained_weights_have_another_fingerprint(tmp_path: Path) -> None:
    weights = bytearray(range(256)) * 40_000
    (tmp_path / "model.safetensors").write_bytes(weights)
    before = fingerprint(tmp_path)
    for place in range(0, len(weights), 300_000):  # training changes weights everywhere
        weights[place : place + 100_000] = bytes(100_000)
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert fingerprint(tmp_path) != before


def test_settings_are_read_from_recipes_runs_and_bare_files(tmp_path: Path) -> None:
    bare = tmp_path / "rewards.yaml"
    bare.write_text("routes: {lab/open: refusal_keywords}\n")
    assert read_evaluation_settings(bare) == EvaluationSettings({"routes": {"lab/open": "refusal_keywords"}}, None)
    from tests.conftest import RECIPES

    recipe = read_evaluation_settings(RECIPES / "quickstart.yaml")
    assert recipe.reward_kwargs["routes"]["playground/open"] == "playground_oracle"
    assert recipe.max_response_length == 16
    assert [Path(file).name for file in recipe.data_files] == ["train.parquet", "id.parquet", "ood.parquet"]
    included = read_evaluation_settings(RECIPES / "grpo-qwen2.5_14b-1x8-fsdp2.yaml")
    routes = included.reward_kwargs["routes"]
    assert routes["safety/open"] == "safety_judge", "routes of a file that the recipe includes"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "config.yaml").write_text((RECIPES / "quickstart.yaml").read_text())
    assert read_evaluation_settings(tmp_path) == recipe
    bare.write_text("trainer: {}\n")
    with pytest.raises(ConfigError, match="neither"):
        read_evaluation_settings(bare)
    with pytest.raises(ConfigError, match=r"give a recipe \(recipes/NAME.yaml\)"):
        read_evaluation_settings("quickstart")


def test_the_command_line_judges_again(lab: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = generate(lab, tmp_path / "out.jsonl", Parrot())
    arguments = ["evaluate", "--rejudge", str(source), "--out", str(tmp_path / "new.jsonl")]
    routes = ["--route", "lab/anchor=multiple_choice", "lab/open=refusal_keywords"]
    assert main([*arguments, *routes]) == 0
    captured = capfd.readouterr()
    assert "lab/id" in captured.out
    assert "24 of 24 rollouts" in captured.err
    assert (tmp_path / "new.jsonl").read_bytes() == source.read_bytes()


def test_one_of_several_judges_is_changed_by_its_name() -> None:
    route = {"name": "verdict_judge", "template": "{answer}?", "judge": "guard"}
    kwargs = {"routes": {"lab/open": route}, "judges": {"guard": {"base_url": "http://a/v1", "min_mass": 0.1}}}
    merged = merge_reward_kwargs(kwargs, judge=["guard.base_url=http://b/v1", "verl.attempts=1"])
    assert merged["judges"] == {"guard": {"base_url": "http://b/v1", "min_mass": 0.1}, "verl": {"attempts": 1}}
    with pytest.raises(ConfigError, match=r"--judge base_url: .*NAME\.KEY=VALUE"):
        merge_reward_kwargs(kwargs, judge=["base_url=http://b/v1"])
