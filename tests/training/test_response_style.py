"""The doctor's view of a response style agrees with what is read of a response that verl has decoded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from verl_air.errors import ConfigError
from verl_air.rewards import FormatRule, Style
from verl_air.training.preflight.style import assistant_prefill, check_tokenizer

_HISTORY = (
    "{%- for m in messages %}{%- set text = m.content.split('</think>')[-1] if m.role == 'assistant' else m.content %}"
    "{{- '<|im_start|>' + m.role + '\n' + text + '<|im_end|>\n' }}{%- endfor %}"
)
TEMPLATES = {
    "qwen3": _HISTORY + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}",
    "r1": _HISTORY + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}",
    "smollm2": "{%- for m in messages %}{%- if loop.first and m.role != 'system' %}"
    "{{- '<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n' }}{%- endif %}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}",
}
TAGS = ("<think>", "</think>")
OFF = {"enable_thinking": False}
THOUGHT, BOTH, EMPTY = "It is B.\n</think>\n\n", "<think>\nIt is B.\n</think>\n\n", "<think>\n\n</think>\n\n"


def make_tokenizer(template: str, special: bool | None) -> PreTrainedTokenizerFast:
    """Of single bytes. special: of the tags of a thought; ``None``: they are no tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: n for n, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>")])
    if special is not None:
        core.add_tokens([AddedToken(tag, special=special, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", chat_template=TEMPLATES[template])


# template, tags special, format, template kwargs, what the model writes, what the doctor says (None: fine)
CASES: dict[str, tuple[str, bool | None, dict[str, Any], dict[str, Any], str, str | None]] = {
    "qwen3 thinks": ("qwen3", False, {"style": "think"}, {}, BOTH + "B", None),
    "qwen3 does not think": ("qwen3", False, {"style": "plain"}, OFF, "B", None),
    "qwen3 with tags of ours": ("qwen3", False, {"style": "think_answer"}, {}, BOTH + "<answer>B</answer>", None),
    "qwen3 thinks, plain": (
        "qwen3", False, {"style": "plain"}, {}, BOTH + "B",
        "thinks unless .* data.apply_chat_template_kwargs.enable_thinking=false, or format.style=think",
    ),
    "qwen3 does not think, think": (
        "qwen3", False, {"style": "think"}, OFF, "B", "closes the thought .* format.style=plain, or .*thinking=true",
    ),
    "qwen3 does not think, prefill named": ("qwen3", False, {"style": "think", "prefill": EMPTY}, OFF, "B", None),
    "qwen3 does not think, think_answer": (
        "qwen3", False, {"style": "think_answer"}, OFF, "<answer>B</answer>", "closes the thought .* must hold one",
    ),
    "special tags, think": (
        "qwen3", True, {"style": "think"}, {}, BOTH + "B", 'needs </think>, which verl drops .* set "special": false',
    ),
    "special tags, think_answer": (
        "qwen3", True, {}, {}, BOTH + "<answer>B</answer>", "needs <think> and </think>, which verl drops",
    ),
    "r1": ("r1", False, {"style": "think"}, {}, THOUGHT + "B", None),
    "r1, prefill named": ("r1", False, {"style": "think", "prefill": "<think>"}, {}, THOUGHT + "B", None),
    "r1, tags of ours": (
        "r1", False, {"style": "think_answer", "prefill": "<think>\n"}, {}, THOUGHT + "<answer>B</answer>", None,
    ),
    "r1, tags of ours, prefill not named": (
        "r1", False, {"style": "think_answer"}, {}, THOUGHT + "<answer>B</answer>",
        r"writes '<think>\\n' before the response: set format.prefill to it",
    ),
    "r1, plain": ("r1", False, {"style": "plain"}, {}, THOUGHT + "B", "opens a thought .* set format.style=think"),
    "r1, special tags": ("r1", True, {"style": "think"}, {}, THOUGHT + "B", "needs </think>, which verl drops"),
    "smollm2": ("smollm2", None, {"style": "plain"}, {}, "B", None),
    "smollm2 with tags of ours": ("smollm2", None, {}, {}, BOTH + "<answer>B</answer>", None),
    "smollm2, think": ("smollm2", None, {"style": "think"}, {}, "B", "does not think .*=plain, or think_answer"),
    "smollm2, a prefill that is not there": (
        "smollm2", None, {"style": "think_answer", "prefill": "<think>"}, {}, BOTH + "<answer>B</answer>",
        "format.prefill='<think>' is not what the chat template begins a response with: remove it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_doctor_agrees_with_what_is_read(case: str) -> None:
    template, special, settings, kwargs, written, fault = CASES[case]
    tokenizer, rule = make_tokenizer(template, special), FormatRule(**settings)
    ids = tokenizer.encode(written + "<|im_end|>", add_special_tokens=False)
    answer = rule.read(tokenizer.decode(ids, skip_special_tokens=True), "safety").answer
    if fault is None:
        assert rule.style in check_tokenizer(rule, tokenizer, kwargs)
        assert answer == "B"
    else:
        with pytest.raises(ConfigError, match=fault):
            check_tokenizer(rule, tokenizer, kwargs)
        assert answer != "B"


@pytest.mark.parametrize(("template", "kwargs", "prefill"), [
    ("qwen3", {}, ""), ("qwen3", OFF, EMPTY), ("r1", {}, "<think>\n"), ("r1", OFF, "<think>\n"), ("smollm2", {}, ""),
])  # fmt: skip
def test_what_a_chat_template_begins(template: str, kwargs: dict[str, Any], prefill: str) -> None:
    assert assistant_prefill(make_tokenizer(template, False), kwargs) == prefill


def test_tags_are_ordinary_after_what_the_doctor_says(tmp_path: Path) -> None:
    make_tokenizer("qwen3", True).save_pretrained(tmp_path)
    rule = FormatRule(style="think")
    with pytest.raises(ConfigError, match="needs </think>"):
        check_tokenizer(rule, AutoTokenizer.from_pretrained(tmp_path), {})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        data = json.loads((tmp_path / name).read_text())
        entries = data.get("added_tokens") or list(data.get("added_tokens_decoder", {}).values())
        for entry in entries:
            entry["special"] = entry["special"] and entry["content"] not in TAGS
        (tmp_path / name).write_text(json.dumps(data))
    assert "think" in check_tokenizer(rule, AutoTokenizer.from_pretrained(tmp_path), {})


@pytest.mark.parametrize("style", ["plain", "think", "think_answer"])
def test_channels_and_broken_templates_are_faults(style: Style) -> None:
    tokenizer, rule = make_tokenizer("smollm2", None), FormatRule(style=style)
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ConfigError, match=r"chat template fails \(roles must alternate\)"):
        check_tokenizer(rule, tokenizer, {})
    tokenizer = make_tokenizer("smollm2", None)
    tokenizer.add_tokens(["<|channel|>"], special_tokens=True)
    with pytest.raises(ConfigError, match=re.escape("by channels (<|channel|>)")):
        check_tokenizer(rule, tokenizer, {})
