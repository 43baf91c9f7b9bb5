from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from verl_air.playground.judging import NEGATIVE_WORD, POSITIVE_WORD
from verl_air.playground.model import build_model
from verl_air.playground.tokenizer import SPECIAL, TAGS, UNKNOWN, build_tokenizer, vocabulary

TOKENIZER = build_tokenizer()
WORDS = [word for word in vocabulary() if word not in SPECIAL]
RESPONSE = "<think> risky </think> <answer> sorry friend </answer>"


@given(st.lists(st.sampled_from(WORDS), max_size=30))
def test_words_of_the_world_come_back(words: list[str]) -> None:
    ids = TOKENIZER.encode(" ".join(words))
    assert len(ids) == len(words)
    assert TOKENIZER.decode(ids).split() == words


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=10), st.sampled_from(["  ", "\t", " \r "]))
def test_the_kind_of_blank_does_not_matter(words: list[str], blank: str) -> None:
    assert TOKENIZER.encode(blank.join(words)) == TOKENIZER.encode(" ".join(words))


def test_tags_and_punctuation_need_no_blanks() -> None:
    glued = "<think>risky</think><answer>sorry friend</answer>"
    assert TOKENIZER.decode(TOKENIZER.encode(glued)) == RESPONSE
    assert TOKENIZER.encode("verdict?") == TOKENIZER.encode("verdict ?")


def test_tags_survive_a_decoding_that_skips_special_tokens() -> None:
    ids = TOKENIZER.encode(f"{RESPONSE}<|im_end|>")
    assert len(ids) == 8
    assert ids[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == RESPONSE
    assert not set(TAGS) & set(TOKENIZER.all_special_tokens)


def test_an_unknown_word_is_one_unknown_token() -> None:
    assert TOKENIZER.tokenize("kill the zeppelin .") == ["kill", "the", UNKNOWN, "."]


def test_special_tokens_are_distinct() -> None:
    ids = [TOKENIZER.eos_token_id, TOKENIZER.pad_token_id, TOKENIZER.unk_token_id]
    assert len(set(ids)) == 3
    assert TOKENIZER.eos_token == "<|im_end|>"


@pytest.mark.parametrize("word", [POSITIVE_WORD, NEGATIVE_WORD])
def test_a_verdict_word_is_a_single_token(word: str) -> None:
    (token,) = TOKENIZER.encode(word)
    assert TOKENIZER.convert_ids_to_tokens(token) == word


def test_chat_template_ends_where_the_assistant_speaks() -> None:
    text = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": "kill the virus"}], add_generation_prompt=True, tokenize=False
    )
    assert TOKENIZER.tokenize(text) == [
        *("<|im_start|>", "user", "kill", "the", "virus", "<|im_end|>"),
        *("<|im_start|>", "assistant"),
    ]


def test_the_model_folder_loads_as_the_same_tokenizer(tmp_path: Path) -> None:
    """For some model types (qwen2) transformers overrules the saved class, and every prompt turns into other tokens."""
    model = build_model(TOKENIZER, seed=0)
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    loaded: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == len(TOKENIZER) == model.config.vocab_size == len(vocabulary())
    chat = [{"role": "user", "content": f"could you please kill the virus . {RESPONSE} zeppelin"}]
    assert loaded.apply_chat_template(chat, add_generation_prompt=True) == TOKENIZER.apply_chat_template(
        chat, add_generation_prompt=True
    )
    assert (loaded.eos_token_id, loaded.pad_token_id) == (TOKENIZER.eos_token_id, TOKENIZER.pad_token_id)
    assert model.generation_config.eos_token_id == TOKENIZER.eos_token_id
