r"""Where the answer of a response is: the response style, and the reward for keeping to it.

================  ===================================================================================================
style             the answer
================  ===================================================================================================
``think_answer``  of ``<think>reasoning</think><answer>answer</answer>``: each tag once, in this order; only white
                  space before, between and after the two blocks, neither of them empty
``think``         what follows ``</think>``, for models that think natively. ``<think>`` may open the response, or the
                  chat template has opened it. ``</think>`` occurs once: after a second one, or where the answer opens
                  another thought, nobody can say which part is the answer
``plain``         the whole response; there is no format reward
================  ===================================================================================================

Only exact, lower-case tags count. In a boxed domain the answer also holds a non-empty ``\boxed{}``, except in
``plain``. A thought without an end has no answer in any style, and no judge is asked about it. ``str.find`` and
``str.count`` do the work, so the time is linear in the length of any text.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, NamedTuple, get_args

from pydantic import Field, model_validator

from verl_air.settings import Settings

Style = Literal["think_answer", "think", "plain"]
STYLES: tuple[Style, ...] = get_args(Style)
THINK, THINK_END = "<think>", "</think>"
TAGS = (THINK, THINK_END, "<answer>", "</answer>")
_BOXED = "\\boxed{"


class Parts(NamedTuple):
    """A response, read.

    answer: what rules read; ``None`` if the format is wrong or nothing is there.
    judged: what judges read as the response: in ``think_answer`` all of it, else the answer. ``None`` if nothing of it
        may be judged: it is blank, or its thought has no end.
    """

    answer: str | None
    judged: str | None


def extract_answer(response: str) -> str | None:
    """Return the stripped answer of a response that is well formatted in the style ``think_answer``, else ``None``."""
    if any(response.count(tag) != 1 for tag in TAGS):
        return None
    think, think_end, answer, answer_end = (response.find(tag) for tag in TAGS)
    if not think < think_end < answer < answer_end:
        return None
    outside = (
        response[:think],
        response[think_end + len(THINK_END) : answer],
        response[answer_end + len("</answer>") :],
    )
    reasoning = response[think + len(THINK) : think_end]
    text = response[answer + len("<answer>") : answer_end].strip()
    if any(part and not part.isspace() for part in outside) or not reasoning.strip() or not text:
        return None
    return text


def answer_after_thought(response: str) -> str | None:
    """Return the stripped answer of a response in the style ``think``, else ``None``."""
    thought, end, answer = response.partition(THINK_END)
    opened_late = THINK in thought and not thought.lstrip().startswith(THINK)
    if not end or opened_late or THINK in answer or THINK_END in answer:
        return None
    return answer.strip() or None


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
    """The response style and the format reward (``reward_kwargs.format``).

    style: where the answer is; see the module.
    right, wrong: the two values of the format reward (paper: +1.25, -1.0); ``plain`` has none.
    boxed: domains whose answer must also hold a box; not in ``plain``.
    prefill: what the chat template has already written for the assistant, such as ``<think>``; read as part of the
        response. ``think`` does without it.
    """

    prefix: ClassVar[str] = "format"

    style: Style = "think_answer"
    right: float = 1.25
    wrong: float = -1.0
    boxed: list[str] = Field(default=["math"])
    prefill: str = ""

    @model_validator(mode="after")
    def _check(self) -> FormatRule:
        if self.wrong > self.right:
            raise ValueError(f"wrong ({self.wrong}) must not be above right ({self.right})")
        if self.style == "plain" and self.prefill:
            raise ValueError(f"the whole response is the answer in style plain: remove prefill={self.prefill!r}")
        return self

    def read(self, response: str, domain: str) -> Parts:
        """Find the answer, and what judges may read."""
        whole = self.prefill + response
        after = whole.rpartition(THINK_END)[2]
        if self.style == "think":
            answer = judged = answer_after_thought(whole)
        elif self.style == "plain":
            unfinished = after == whole and whole.lstrip().startswith(THINK)  # a text may speak of the tag
            answer = judged = None if unfinished else whole.strip() or None
        else:
            unfinished = THINK in after and "<answer>" not in after
            answer, judged = extract_answer(whole), None if unfinished or not response.strip() else response
        if answer is not None and self.style != "plain" and domain in self.boxed and not last_boxed(answer):
            answer = None
        return Parts(answer, judged)

    def write(self, answer: str) -> str:
        """A response with this answer, as a policy would write it without a prefill."""
        thought = f"{THINK}The answer is known.{THINK_END}"
        return {"think_answer": f"{thought}<answer>{answer}</answer>", "think": thought + answer}.get(
            self.style, answer
        )

    def reward(self, answer: str | None) -> float:
        """The format reward; NaN in ``plain``, which has none."""
        return math.nan if self.style == "plain" else self.wrong if answer is None else self.right

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest that the format adds to a score."""
        return (0.0, 0.0) if self.style == "plain" else (self.wrong, self.right)
