"""A step with ``air.consistency``: the real reference worker reads the plain requests, without a KL option."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.runs.launch import NO_VALIDATION, ORACLE, SMALL, main_ppo

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.timeout(1500)]


def without_tokens_that_text_loses(model: Path, out: Path) -> Path:
    """A copy of a model that never says what decoding drops, so that stored text has all its tokens."""
    shutil.copytree(model, out)
    tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    head = 20 * policy.get_input_embeddings().weight.detach().clone()
    lost = [
        token
        for token in range(len(tokenizer))
        if ids_of(tokenizer, tokenizer.decode([token], skip_special_tokens=True)) != [token]
    ]
    head[lost] = 0.0  # the largest of 200 random logits is far above zero
    policy.config.tie_word_embeddings = False
    policy.lm_head.weight = torch.nn.Parameter(head)
    policy.save_pretrained(out)
    return out


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_the_kl_of_the_first_step_is_that_of_the_stored_responses(playground_files: Path, tmp_path: Path) -> None:
    """The policy is still the initial one, so both sides of the KL can be computed from its weights alone."""
    folder = without_tokens_that_text_loses(playground_files / "model", tmp_path / "model")
    one_step = (
        f"actor_rollout_ref.model.path={folder}",
        "trainer.total_training_steps=1",
        "trainer.save_freq=-1",
        "air.coef=0",
        "++air.consistency=0.05",
    )
    run = main_ppo(tmp_path, playground_files, *SMALL, *ORACLE, *NO_VALIDATION, *one_step)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts = {
        row["extra_info"]["index"]: row["prompt"]
        for row in pq.read_table(playground_files / "train.parquet").to_pylist()
    }

    def log_prob(messages: list[dict[str, str]], response: torch.Tensor) -> float:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        text = torch.cat([torch.tensor(ids), response])
        with torch.no_grad():
            logits = model(text[None]).logits[0, len(ids) - 1 : -1]
        return float(logits.log_softmax(-1).gather(1, response[:, None]).sum())

    kl = []
    for row in run.rollouts(1):
        if row["role"] == "open":
            ids = ids_of(tokenizer, row["output"])
            assert len(ids) == 16, "a response ended, or text lost a token"
            response = torch.tensor(ids)
            plain = [{"role": "user", "content": json.loads(row["extras"])["request"]}]
            kl.append(log_prob(prompts[row["index"]], response) - log_prob(plain, response))
    metrics = run.metrics()[1]
    assert metrics["air/consistency/rows"] == len(kl) == 18
    assert metrics["air/consistency/kl"] == pytest.approx(fmean(kl), rel=1e-3)
    assert metrics["actor/consistency_loss"] != 0
    assert "actor/air_loss" not in metrics  # coef is 0
    assert not any(name.startswith("actor/kl") for name in metrics)  # verl's own KL terms stay off
