"""A step with ``air.consistency``: the real reference worker reads the plain requests, without a KL option."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.runs.launch import NO_VALIDATION, ORACLE, SMALL, main_ppo

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.timeout(1500)]


def test_the_kl_of_the_first_step_is_that_of_the_stored_responses(playground_files: Path, tmp_path: Path) -> None:
    """The policy is still the initial one, so both sides of the KL can be computed from its weights alone."""
    one_step = ("trainer.total_training_steps=1", "trainer.save_freq=-1", "air.coef=0", "++air.consistency=0.05")
    run = main_ppo(tmp_path, playground_files, *SMALL, *ORACLE, *NO_VALIDATION, *one_step)
    tokenizer = AutoTokenizer.from_pretrained(playground_files / "model")
    model = AutoModelForCausalLM.from_pretrained(playground_files / "model", dtype=torch.float32)
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
            ids = tokenizer(row["output"], add_special_tokens=False)["input_ids"]
            full = len(ids) >= 16  # cut off by the length limit: no end token
            response = torch.tensor(ids if full else [*ids, tokenizer.eos_token_id])
            plain = [{"role": "user", "content": json.loads(row["extras"])["request"]}]
            kl.append(log_prob(prompts[row["index"]], response) - log_prob(plain, response))
    metrics = run.metrics()[1]
    assert metrics["air/consistency/rows"] == len(kl) == 18
    assert metrics["air/consistency/kl"] == pytest.approx(fmean(kl), rel=1e-3)
    assert metrics["actor/consistency_loss"] != 0
    assert "actor/air_loss" not in metrics  # coef is 0
    assert not any(name.startswith("actor/kl") for name in metrics)  # verl's own KL terms stay off
    assert "timing_s/ref" in metrics or "timing_s/adv" in metrics
