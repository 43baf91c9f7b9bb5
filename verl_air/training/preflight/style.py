"""Does the response style fit the model: what its chat template begins, and which tags decoding keeps?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_air.errors import ConfigError
from verl_air.rewards import FormatRule
from verl_air.rewards.format import TAGS, THINK, THINK_END

_FORMAT = "reward.custom_reward_function.reward_kwargs.format"
_KWARGS = "data.apply_chat_template_kwargs"
_THINKING = f"{_KWARGS}.enable_thinking"


def check_response_style(config: DictConfig, tokenizer: Any) -> str:
    """Compare a recipe's response style with the policy's tokenizer; see :func:`check_tokenizer`."""

    def section(key: str) -> Any:
        return OmegaConf.to_container(OmegaConf.create(OmegaConf.select(config, key) or {}), resolve=True)

    return check_tokenizer(FormatRule.from_mapping(section(_FORMAT)), tokenizer, section(_KWARGS))


def check_tokenizer(rule: FormatRule, tokenizer: Any, template_kwargs: Mapping[str, Any]) -> str:
    """Compare a response style with a tokenizer; ``template_kwargs`` are ``data.apply_chat_template_kwargs``.

    Returns:
        What was found, in one line.

    Raises:
        ConfigError: the style cannot work with this model, and what to change, a line per fault.
    """
    prefill = assistant_prefill(tokenizer, template_kwargs)
    if faults := [*_lost_tags(rule, tokenizer), *_template_faults(rule, tokenizer, template_kwargs, prefill)]:
        raise ConfigError("\n".join(faults))
    written = f"the chat template begins the response with {prefill!r}" if prefill else "the response begins untouched"
    return f"format.style={rule.style}; {written}"


def assistant_prefill(tokenizer: Any, template_kwargs: Mapping[str, Any]) -> str:
    """What the chat template writes of a thought after the assistant's header, such as ``"<think>\\n"``; often nothing.

    Raises:
        ConfigError: the template fails.
    """
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True, **template_kwargs
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise ConfigError(f"the model's chat template fails ({error}); see {_KWARGS}") from error
    found = text.find(THINK, text.find("Hello"))
    return text[found:] if found >= 0 else ""


def _lost_tags(rule: FormatRule, tokenizer: Any) -> Iterator[str]:
    """Tags that decoding drops, as verl decodes: without special tokens."""
    if "<|channel|>" in tokenizer.get_vocab():
        yield (
            "this model separates thought and answer by channels (<|channel|>), which verl drops when it decodes a "
            "response: no response style can separate them, so take another model"
        )
    needed = {"think_answer": TAGS, "think": (THINK_END,), "plain": ()}[rule.style]
    ids = {tag: tokenizer.encode(tag, add_special_tokens=False) for tag in needed}
    if lost := [tag for tag in needed if tag not in tokenizer.decode(ids[tag], skip_special_tokens=True)]:
        yield (
            f"format.style={rule.style} needs {' and '.join(lost)}, which verl drops when it decodes a response, since "
            'the tokenizer calls them special: set "special": false for them in tokenizer.json (added_tokens) and in '
            "tokenizer_config.json (added_tokens_decoder), and take them off its special tokens"
        )


def _template_faults(
    rule: FormatRule, tokenizer: Any, template_kwargs: Mapping[str, Any], prefill: str
) -> Iterator[str]:
    """What the chat template begins, and the style does not expect; or the other way round."""
    closed = prefill.rfind(THINK_END) > prefill.rfind(THINK)
    opened = bool(prefill) and not closed
    named = rule.prefill.strip() == prefill.strip()
    if rule.prefill and not named:
        correct = f"set it to {prefill!r}" if prefill else "remove it"
        yield f"format.prefill={rule.prefill!r} is not what the chat template begins a response with: {correct}"
    elif rule.style == "plain":
        if opened:
            yield f"the chat template opens a thought ({prefill!r}), so no response is plain: set format.style=think"
        elif not prefill and THINK_END in assistant_prefill(tokenizer, {**template_kwargs, "enable_thinking": False}):
            yield (
                f"this model thinks unless that is switched off, so no response is plain: set {_THINKING}=false, or "
                "format.style=think"
            )
    elif rule.style == "think_answer":
        if closed:
            yield (
                f"the chat template closes the thought ({prefill!r}) before the response, which must hold one: set "
                f"format.style=plain, or {_THINKING}=true"
            )
        elif opened and not named:
            yield f"the chat template writes {prefill!r} before the response: set format.prefill to it"
    elif closed and not named:
        yield (
            f"the chat template closes the thought ({prefill!r}), so no response holds {THINK_END}: set "
            f"format.style=plain, or {_THINKING}=true"
        )
    elif not prefill and not _knows_thoughts(tokenizer):
        yield (
            f"neither the chat template nor the vocabulary has {THINK_END}, so this model does not think natively and "
            "no response would have an answer: set format.style=plain, or think_answer, which asks for the tags"
        )


def _knows_thoughts(tokenizer: Any) -> bool:
    return THINK_END in str(tokenizer.chat_template) or len(tokenizer.encode(THINK_END, add_special_tokens=False)) == 1
