"""General benchmarks, before and after training: questions with an answer that a registered rule checks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from verl_air.data.framings import BOXED_DOMAINS, with_instruction
from verl_air.data.intents import make_intent_id
from verl_air.data.schema import DataRow, ExtraInfo, RewardModelColumn
from verl_air.data.sources import Source, read_source
from verl_air.errors import ConfigError, DataError, RewardError
from verl_air.rewards import Style, self_check

# Not among the roles and splits of data files: a recipe's route to open rows does not reach a benchmark.
ROLE: Any = "question"
SPLIT: Any = "capability"
_EXPECTED = {
    "math": "the final result",
    "multiple_choice": "only the letter of your choice",
    "true_false": "only True or False",
}
"""What a prompt asks for, by rule."""


@dataclass(frozen=True)
class CapabilityBenchmark:
    """Questions of one file, each a meta-group of its own.

    name: its domain, so it is reported as ``name/capability``. rule: the reward that scores it.
    source: a file with the columns ``question`` and ``answer``, JSONL or another kind that the data builders read. Of a
        worked solution, as GSM8K's, what follows ``####`` is the answer. Other columns are extras.
    """

    name: str
    rule: str
    source: str

    @classmethod
    def parse(cls, text: str) -> CapabilityBenchmark:
        """Read ``NAME:RULE=FILE``.

        Raises:
            ConfigError: a part is missing.
        """
        left, _, source = text.partition("=")
        name, _, rule = left.partition(":")
        if not (name and rule and source) or "/" in name:
            raise ConfigError(f"--capability {text}: write NAME:RULE=FILE, for example gsm8k:math=gsm8k/test.jsonl")
        return cls(name, rule, source)

    @property
    def route(self) -> str:
        """That leads its rows to its rule."""
        return f"{self.name}/*={self.rule}"

    @cached_property
    def content(self) -> Source:
        """The file, read.

        Raises:
            DataError: it cannot be read, or lacks a column.
        """
        found = read_source(self.source)
        found.require("question", "answer")
        return found

    def rows(self, style: Style) -> Iterator[DataRow]:
        """As rows of data, in a response style.

        Raises:
            DataError: a question or an answer is empty, or the rule does not accept the answer.
        """
        domain = next(iter(BOXED_DOMAINS)) if self.rule == "math" else self.name
        for index, row in enumerate(self.content.rows):
            question, answer = row.text("question"), row.text("answer").rpartition("####")[2].strip()
            if not question or not answer:
                raise DataError(f"{row.where}: no {'answer' if question else 'question'}")
            extras = {name: value for name, value in row.values.items() if name not in ("question", "answer")}
            info = ExtraInfo(
                index=index, intent_id=make_intent_id(self.name, question), role=ROLE, context=ROLE, family=ROLE,
                domain=self.name, split=SPLIT, extras=json.dumps(extras, ensure_ascii=False, default=str),
            )  # fmt: skip
            try:
                fault = self_check(self.rule, answer, info, style=style)
            except RewardError as error:
                fault = str(error)
            if fault:
                raise DataError(f"{row.where}: {fault}")
            yield DataRow(
                data_source=f"{self.name}/{SPLIT}",
                prompt=with_instruction(question, _EXPECTED.get(self.rule, "only the answer"), domain, style),
                ability=self.name,
                reward_model=RewardModelColumn(style="rule", ground_truth=answer),
                extra_info=info,
            )
