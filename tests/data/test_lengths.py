from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.support import build_fixture, spoil
from verl_air.data.check import CheckOptions, check_files
from verl_air.data.check.contents import PromptLengths
from verl_air.data.schema import ChatMessage, read_rows
from verl_air.errors import DataError

pytestmark = pytest.mark.slow  # it imports transformers

TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}<|assistant|>"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A byte-level tokenizer without merges: one token a byte, so that lengths can be told by hand."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = Tokenizer(models.BPE(vocab={char: n for n, char in enumerate(alphabet)}, merges=[]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=model, chat_template=TEMPLATE)
    folder = tmp_path_factory.mktemp("tokenizer")
    fast.save_pretrained(folder)
    return str(folder)


def test_prompts_above_the_limit_are_named(tokenizer: str, tmp_path: Path) -> None:
    files = build_fixture("math", tmp_path)
    longest = max(sum(len(m["content"].encode()) for m in row["prompt"]) for row in read_rows(files[0]))
    roomy = check_files(files, CheckOptions(tokenizer=tokenizer, max_prompt_length=2 * longest + 100))
    assert roomy.findings == []
    assert "none is near the limit" in roomy.notes[0]
    text = "x" * 3000
    spoil(files[0], lambda rows: rows[4].update(prompt=[ChatMessage(role="user", content=text)]))
    report = check_files(files, CheckOptions(tokenizer=tokenizer, max_prompt_length=2999))
    (finding,) = report.findings
    assert (finding.check, finding.row, finding.column) == ("prompt length", 4, "prompt")
    n = len("<|user|>") + 3000 + len("<|assistant|>")
    assert finding.message == f"{n} tokens with the chat template, more than 2999"
    assert f"the longest of them has {n}" in report.notes[0]


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_the_limit_is_exact(tokenizer: str, extra: int) -> None:
    lengths = PromptLengths(tokenizer, 100)
    content = "é" * 10 + "y" * (100 - len("<|user|><|assistant|>") - 20 + extra)
    found = lengths.too_long([[{"role": "user", "content": content}]])
    assert found == ([(0, 101)] if extra == 1 else [])


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--tokenizer .*nowhere: cannot be loaded"):
        PromptLengths(str(tmp_path / "nowhere"), 10)
