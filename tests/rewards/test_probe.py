"""A judge that cannot work is named in one line before anything starts; through a real HTTP server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from omegaconf import OmegaConf

from reward_fns.safety_judge import FACETS
from tests.rewards.conftest import QUICK, Misbehaving, reply, verdict
from tests.rewards.support import row
from tests.rewards.tiny_judge import CHAT_TEMPLATE, make_tokenizer
from verl_air.data.schema import make_row, write_rows
from verl_air.errors import ConfigError
from verl_air.rewards import ScoringPlan, probe
from verl_air.rewards.judge.prompts import JudgeTokenizer, fill
from verl_air.rewards.probe import probe_judge, rehearse_judge
from verl_air.training.preflight import judges
from verl_air.training.preflight.judges import check_judges_answer

ASK = {"name": "verdict_judge", "template": "Is {response} good?"}
TURNS = [{"role": "user", "content": "{request}"}, {"role": "assistant", "content": "{response}"}]


async def probed(server: Misbehaving, route: dict[str, Any], **settings: Any) -> tuple[int, int]:
    plan = ScoringPlan({"*": route}, judges={"guard": {"base_url": server.url, **QUICK, **settings}})
    extra = row("lab", "open", request="How?")
    return await probe_judge(plan, plan.reward_for("lab/train", extra), extra, max_tokens=256)


def answers(server: Misbehaving, tokens: list[int] | None = None, drops: str = "", **choice: Any) -> None:
    """Answers as vLLM: a word as a token; a template may drop the turns of a role."""

    async def handler(request: web.Request, n: int) -> web.StreamResponse:
        body = await request.json()
        if request.path == "/tokenize":
            return await reply({"tokens": tokens} if tokens is not None else {}, 200 if tokens is not None else 404)
        text = " ".join(turn["content"] for turn in body.get("messages", ()) if turn["role"] != drops)
        used = len(text.split()) or len(body["prompt"][0])
        found = verdict() if "messages" in body else {"choices": [{"index": 0, "logprobs": {"top_logprobs": [{}]}}]}
        found["choices"][0].update(choice)
        return await reply({**found, "usage": {"prompt_tokens": used, "total_tokens": used + 1}})

    server.handler = handler


async def test_a_judge_that_works_is_measured(server: Misbehaving) -> None:
    answers(server)
    requests, tokens = await probed(server, ASK)
    assert requests == 1
    assert 100 < tokens < 256


@pytest.mark.parametrize(
    ("served", "route", "settings", "message"),
    [
        ({}, ASK, {"base_url": "http://127.0.0.1:9/v1"}, r"'guard': no judge answers at http://127\.0\.0\.1:9/v1"),
        ({"logprobs": None}, ASK, {}, r"gives 'verdict_judge' no verdict: .*holds no log-probs"),
        ({"message": {}}, {**ASK, "name": "generative_judge"}, {}, "no verdict: .*holds no text"),
        ({"tokens": [1, 2, 3]}, ASK, {"tokenizer": "TOKENIZER", "max_prompt_tokens": 999}, "another tokenizer"),
        (
            {"drops": "assistant", "message": {"content": "safe"}},
            {"name": "guard_judge", "guard": "llama_guard_3"},
            {},
            "does not see the response.*drops the assistant's turn",
        ),
    ],
    ids=["nobody there", "no log-probs", "no text", "another tokenizer", "a dropped turn"],
)
async def test_a_judge_that_cannot_work_is_named(
    server: Misbehaving, tmp_path: Path, served: Any, route: Any, settings: dict[str, Any], message: str
) -> None:
    answers(server, **served)
    if "tokenizer" in settings:
        make_tokenizer().save_pretrained(tmp_path)
        settings = {**settings, "tokenizer": str(tmp_path)}
    with pytest.raises(ConfigError, match=message) as caught:
        await probed(server, route, **settings)
    assert "\n" not in str(caught.value)


async def test_a_judge_that_hangs_is_named_in_time(server: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_LIMIT_S", 0.2)

    async def hang(request: web.Request, n: int) -> web.StreamResponse:
        await asyncio.sleep(5.0)
        return await reply(verdict())

    server.handler = hang
    with pytest.raises(ConfigError, match=r"'guard' gave 'verdict_judge' no verdict on two replies in 0.2 s"):
        await probed(server, ASK)


SERVED_FAULTS = {
    "no chat template": ({"chat_template": None}, ASK, 512, "cannot be asked by 'verdict_judge': .*chat.template"),
    "a dropped turn": (
        {"chat_template": CHAT_TEMPLATE.replace("in messages", "in messages if m['role'] == 'user'")},
        {"name": "guard_judge", "guard": "llama_guard_3"},
        512,
        r"chat template drops \{response\}",
    ),
    "a short context": ({}, ASK, 20, r"cannot be asked by 'verdict_judge': the judge's prompt has \d+ tokens and only"),
    "words alike": ({}, {**ASK, "negative": "YES!"}, 512, "cannot distinguish the verdict words"),
    "the second question": (
        {},
        {"name": "safety_judge", "facets": "FACETS"},
        2048,
        "cannot distinguish the verdict words",
    ),
}


@pytest.mark.parametrize("fault", SERVED_FAULTS)
async def test_a_judge_that_verl_will_serve_is_rehearsed(tmp_path: Path, fault: str) -> None:
    """With its tokenizer alone, all that it would be asked is written; nothing is sent, for nobody is there."""
    changes, route, longest, message = SERVED_FAULTS[fault]
    own = FACETS.read_text().replace('"YES"', '"alike"').replace('"NO"', '"alike!"')
    (tmp_path / "facets.yaml").write_text(own)
    route = {key: value.replace("FACETS", str(tmp_path / "facets.yaml")) for key, value in route.items()}
    plan, extra, tokenizer = ScoringPlan({"*": route}), row("lab", "open", request="How?"), make_tokenizer()
    bound = plan.reward_for("lab/train", extra)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    with pytest.raises(ConfigError, match=message) as caught:
        await rehearse_judge(plan, bound, extra, tokenizer, longest)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "route",
    [ASK, {"name": "safety_judge"}, {"name": "guard_judge", "guard": "qwen3guard_gen"}, {"name": "discriminative"}],
)
async def test_a_judge_that_can_be_asked_passes_its_rehearsal(route: dict[str, Any]) -> None:
    plan, extra = ScoringPlan({"*": route}), row("lab", "open", request="How?")
    await rehearse_judge(plan, plan.reward_for("lab/train", extra), extra, make_tokenizer(), 2048)


def test_a_template_of_a_known_tokenizer_that_drops_the_turn_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokens = JudgeTokenizer(tokenizer, {})
    filled = fill(TURNS, {"request": "How?", "response": "No."})
    tokens.check_structure(tokens.encode(filled), TURNS)
    tokenizer.chat_template = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    dropping = JudgeTokenizer(tokenizer, {})
    with pytest.raises(ConfigError, match=r"chat template drops \{response\}"):
        dropping.check_structure(dropping.encode(filled), TURNS)
    assert CHAT_TEMPLATE not in tokenizer.chat_template


async def test_what_leaves_the_machine_is_said_with_its_amount(
    server: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the rows are judged: 10 steps of 8 rows with 4 completions make 160 requests."""
    answers(server)
    common = {"prompt": "How?", "ground_truth": "B", "intent_id": "z", "context": "c", "domain": "lab", "index": 0}
    rows = [make_row(role=role, split="train", **common) for role in ("anchor", "open")]
    kwargs = {"routes": {"*/anchor": "format", "*/open": ASK}, "judges": {"guard": {"base_url": server.url}}}
    config = OmegaConf.create(
        {
            "reward": {"custom_reward_function": {"path": "pkg://verl_air.rewards", "reward_kwargs": kwargs}},
            "data": {
                "train_files": [str(write_rows(tmp_path / "train.parquet", rows))],
                "train_batch_size": 8,
                "max_response_length": 256,
            },
            "trainer": {"total_training_steps": 10, "total_epochs": 1},
            "actor_rollout_ref": {"rollout": {"n": 4}},
        }
    )
    [line] = await asyncio.to_thread(check_judges_answer, config)
    assert line.startswith(f"judge 'guard' answers at {server.url}; requests and responses stay on this machine")
    assert "asks about 160 times" in line
    monkeypatch.setattr(judges, "_THIS_MACHINE", ())
    [line] = await asyncio.to_thread(check_judges_answer, config)
    assert "requests and responses leave this machine" in line
    server.handler = lambda request, n: reply({"choices": []})
    with pytest.raises(ConfigError, match="no verdict"):
        await asyncio.to_thread(check_judges_answer, config)
