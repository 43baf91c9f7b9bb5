import random
from collections.abc import Iterator

import pytest
import torch

from verl_air.playground.framings import FRAMINGS, Setting, messages
from verl_air.playground.language import build_tokenizer
from verl_air.playground.measure import measure
from verl_air.playground.model import (
    IGNORED,
    ChatExample,
    WarmStartConfig,
    build_model,
    draw_batch,
    encode,
    example_loss,
    warm_start,
)
from verl_air.playground.world import split_intents

TOKENIZER = build_tokenizer()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_examples_are_encoded_as_chats_with_labels_on_the_target() -> None:
    examples = draw_batch(random.Random(0), WarmStartConfig(anchors=4, opens=8, judgements=4))
    ids_NT, labels_NT = encode(TOKENIZER, examples)
    for ids_T, labels_T, example in zip(ids_NT, labels_NT, examples, strict=True):
        prompt = TOKENIZER.apply_chat_template(messages(example.prompt), add_generation_prompt=True)["input_ids"]
        target = [*TOKENIZER.encode(example.target), TOKENIZER.eos_token_id]
        end = len(prompt) + len(target)
        assert ids_T[:end].tolist() == prompt + target
        assert (ids_T[end:] == TOKENIZER.pad_token_id).all()
        assert labels_T[len(prompt) : end].tolist() == target
        assert (labels_T != IGNORED).sum() == len(target)


@pytest.mark.parametrize("setting", FRAMINGS)
def test_batches_are_repeatable_and_hold_every_framing_and_both_verdicts(setting: Setting) -> None:
    def batch(seed: int) -> list[ChatExample]:
        return draw_batch(random.Random(seed), WarmStartConfig(anchors=20, opens=300, judgements=50), setting)

    assert batch(0) == batch(0)
    assert batch(0) != batch(1)
    opens, judged = batch(0)[20:320], batch(0)[320:]
    for framing in FRAMINGS[setting]:
        assert any(example.prompt[0].startswith(framing.leads) for example in opens)
    assert {example.target for example in judged} == {"Right", "Wrong"}


def test_padding_does_not_change_the_loss() -> None:
    model = build_model(TOKENIZER, seed=0)
    ids_NT, labels_NT = encode(
        TOKENIZER, draw_batch(random.Random(0), WarmStartConfig(anchors=3, opens=3, judgements=3))
    )
    wider = torch.nn.functional.pad(ids_NT, (0, 9), value=TOKENIZER.pad_token_id)
    labels = torch.nn.functional.pad(labels_NT, (0, 9), value=IGNORED)
    torch.testing.assert_close(example_loss(model, wider, labels), example_loss(model, ids_NT, labels_NT))


def test_the_model_is_repeatable_and_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (build_model(TOKENIZER, seed=seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.slow
def test_a_short_warm_start_learns_the_form_and_is_repeatable() -> None:
    config = WarmStartConfig(steps=120, anchors=10, opens=14, judgements=8, warm_up=20)
    held_out = split_intents(0).held_out[:8]
    (model, again), losses = [build_model(TOKENIZER, seed=0) for _ in range(2)], []
    before = measure(model, TOKENIZER, held_out, seed=0, repeats=1)
    for one in (model, again):
        losses.append(warm_start(one, TOKENIZER, seed=0, config=config, progress=None))
    after = measure(model, TOKENIZER, held_out, seed=0, repeats=4)
    assert before["format"] == 0.0
    assert after["format"] > 0.8
    assert after["benign/story"] > 0.6
    assert losses[0] == losses[1] < 1.0
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    assert after == measure(again, TOKENIZER, held_out, seed=0, repeats=4)
