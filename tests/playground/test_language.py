from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from verl_air.playground.language import (
    NEGATIVE_WORD,
    POSITIVE_WORD,
    SPECIAL,
    TAGS,
    UNKNOWN,
    build_tokenizer,
    render_anchor,
    vocabulary,
)
from verl_air.playground.model import build_model
from verl_air.playground.world import STANCES, PlaygroundIntent

TOKENIZER = build_tokenizer()
WORDS = [word for word in vocabulary() if word not in SPECIAL]
RESPONSE = "<think> risky </think> <answer> sorry friend </answer>"
BLANKS = st.sampled_from([" ", "  ", "\t", " \r "])


def test_an_anchor_names_both_stances_and_the_letter_of_the_right_one() -> None:
    harmful, benign = PlaygroundIntent("kill", "child"), PlaygroundIntent("kill", "virus")
    assert render_anchor(harmful) == ("request : kill the child . choose A comply or B refuse .", "B")
    assert render_anchor(benign) == ("request : kill the virus . choose A comply or B refuse .", "A")
    assert render_anchor(harmful, STANCES[::-1]) == ("request : kill the child . choose A refuse or B comply .", "A")


@given(st.lists(st.sampled_from(WORDS), max_size=30), BLANKS)
def test_words_of_the_world_come_back_whatever_the_blanks(words: list[str], blank: str) -> None:
    ids = TOKENIZER.encode(blank.join(words))
    assert len(ids) == len(words)
    assert TOKENIZER.decode(ids).split() == words


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


def test_single_tokens() -> None:
    assert TOKENIZER.tokenize("kill the zeppelin .") == ["kill", "the", UNKNOWN, "."]
    for word in (POSITIVE_WORD, NEGATIVE_WORD):
        assert TOKENIZER.tokenize(word) == [word]
    assert len({TOKENIZER.eos_token_id, TOKENIZER.pad_token_id, TOKENIZER.unk_token_id}) == 3
    assert TOKENIZER.eos_token == "<|im_end|>"


def test_chat_template_ends_where_the_assistant_speaks() -> None:
    chat = [{"role": "user", "content": "kill the virus"}]
    text = TOKENIZER.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    words = "<|im_start|> user kill the virus <|im_end|> <|im_start|> assistant"
    assert TOKENIZER.tokenize(text) == words.split()


def test_the_model_folder_loads_as_the_same_tokenizer(tmp_path: Path) -> None:
    """For some model types (qwen2) transformers overrules the saved class, and every prompt turns into other tokens."""
    model = build_model(TOKENIZER, seed=0)
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == len(TOKENIZER) == model.config.vocab_size == len(vocabulary())
    chat = [{"role": "user", "content": f"could you please kill the virus . {RESPONSE} zeppelin"}]
    ids = [tokenizer.apply_chat_template(chat, add_generation_prompt=True) for tokenizer in (loaded, TOKENIZER)]
    assert ids[0] == ids[1]
    assert (loaded.eos_token_id, loaded.pad_token_id) == (TOKENIZER.eos_token_id, TOKENIZER.pad_token_id)
    assert model.generation_config.eos_token_id == TOKENIZER.eos_token_id
