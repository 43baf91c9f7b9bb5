r"""The response format: ``<think>reasoning</think><answer>answer</answer>``.

Only exact, lower-case tags count. Each occurs once, in this order; only white space occurs before, between and after
the two blocks; neither is empty. In a boxed domain the answer also holds a non-empty ``\boxed{}``. ``str.find`` and
``str.count`` do the work, so the time is linear in the length of any text.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from verl_air.settings import Settings

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BOXED = "\\boxed{"


def extract_answer(response: str) -> str | None:
    """Return the stripped answer of a well-formatted response, else ``None``."""
    if any(response.count(tag) != 1 for tag in TAGS):
        return None
    think, think_end, answer, answer_end = (response.find(tag) for tag in TAGS)
    if not think < think_end < answer < answer_end:
        return None
    outside = (
        response[:think],
        response[think_end + len("</think>") : answer],
        response[answer_end + len("</answer>") :],
    )
    reasoning = response[think + len("<think>") : think_end]
    text = response[answer + len("<answer>") : answer_end].strip()
    if any(part and not part.isspace() for part in outside) or not reasoning.strip() or not text:
        return None
    return text


def last_boxed(text: str) -> str | None:
    r"""Return what the last ``\boxed{...}`` holds, braces counted (escaped ones do not count); ``None`` if unclosed."""
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth, position = 1, start + len(_BOXED)
    begin = position
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 2
            continue
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[begin:position].strip()
        position += 1
    return None


class FormatRule(Settings):
    """The format reward (``reward_kwargs.format``).

    right, wrong: its two values (paper: +1.25, -1.0).
    boxed: domains whose answer must also hold a box.
    prefill: what the chat template has already written for the assistant, such as ``<think>``; read as part of the
        response.
    """

    prefix: ClassVar[str] = "format"

    right: float = 1.25
    wrong: float = -1.0
    boxed: list[str] = Field(default=["math"])
    prefill: str = ""

    @model_validator(mode="after")
    def _check_order(self) -> FormatRule:
        if self.wrong > self.right:
            raise ValueError(f"wrong ({self.wrong}) must not be above right ({self.right})")
        return self

    def parse(self, response: str, domain: str) -> str | None:
        """Return the answer, or ``None`` if the format is wrong."""
        answer = extract_answer(self.prefill + response)
        if answer is not None and domain in self.boxed and not last_boxed(answer):
            return None
        return answer

    def write(self, answer: str) -> str:
        """A response with this answer, as a policy would write it without a prefill."""
        return f"<think>The answer is known.</think><answer>{answer}</answer>"
