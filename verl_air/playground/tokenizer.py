"""A word-level tokenizer that knows exactly the words of the playground.

``<think>`` and its kin are ordinary words, not special tokens: verl decodes responses with ``skip_special_tokens=True``
and the format reward must still see them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from verl_air.playground.judging import NEGATIVE_WORD, POSITIVE_WORD, judge_prompt
from verl_air.playground.prompts import FRAMINGS, LETTERS, render_anchor
from verl_air.playground.replies import CLOSERS, OPENERS, THOUGHTS
from verl_air.playground.world import INTENTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, START, END = "<|endoftext|>", "<unk>", "<|im_start|>", "<|im_end|>"
# verl takes a Qwen2 model's chat for ChatML and wants "\n" to be one token (utils/tokenizer/continuous_token.py).
NEWLINE = "\n"
SPECIAL = (PAD, UNKNOWN, START, END, NEWLINE)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
ROLES = ("system", "user", "assistant")
MAX_LENGTH = 128

# Tags stay whole; punctuation stands alone even without blanks around it. Runs of blanks vanish.
_WORD = r"</?[a-z]+>|\w+|[^\w\s]"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} {{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


def _texts() -> Iterator[str]:
    """Texts that between them hold every word of the world."""
    yield from ROLES
    yield from TAGS
    yield from (intent.request for intent in INTENTS)
    for framing in FRAMINGS:
        yield from framing.leads + framing.tails
    yield render_anchor(INTENTS[0])[0]
    yield from LETTERS
    for words in (*THOUGHTS.values(), *OPENERS.values(), CLOSERS):
        yield from words
    yield judge_prompt("", "")
    yield f"{POSITIVE_WORD} {NEGATIVE_WORD}"


def vocabulary() -> dict[str, int]:
    """Every token and its id, in a fixed order: special tokens first."""
    words = dict.fromkeys(SPECIAL)
    for text in _texts():
        words.update(dict.fromkeys(text.split()))
    return {word: index for index, word in enumerate(words)}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template; ``len(tokenizer)`` is the size of the vocabulary."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(_WORD), behavior="isolated")]
    )
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[START],
        model_max_length=MAX_LENGTH,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
