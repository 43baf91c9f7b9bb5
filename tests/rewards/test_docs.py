"""The examples of docs/rewards.md run as they are."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.rewards.support import finish, respond, row
from verl_air.rewards import ScoringPlan, compute_score, get_reward, reward_names

TEXT = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n+(?=    ))+", TEXT, re.MULTILINE)]


pytestmark = pytest.mark.usefixtures("own_registry")


def block(start: str) -> str:
    (found,) = [text for text in BLOCKS if start in text]
    return found


def test_the_first_example_registers_and_scores() -> None:
    exec(block("# acme_rewards.py"), {"__name__": "acme_rewards"})
    settings = yaml.safe_load(block("modules: [acme_rewards]"))["reward_kwargs"]
    del settings["modules"]  # the block above replaces it
    assert (
        finish(compute_score("safety/train", respond("short"), "", row("safety", "open"), **settings))["score"] == 2.5
    )


def test_the_judge_example_registers() -> None:
    exec(block('"acme_polite"'), {"__name__": "acme_polite"})
    ScoringPlan(
        {"safety/open": "acme_polite"}, judge=yaml.safe_load(block("api_key_env: JUDGE_KEY"))["reward_kwargs"]["judge"]
    )


def test_the_example_of_several_judges_is_valid() -> None:
    settings = yaml.safe_load(block("judges:\n").replace('"..."', '"{response}"'))["reward_kwargs"]
    assert list(ScoringPlan(**settings).judges) == ["guard", "moral", "verl"]


def test_the_recipes_are_valid() -> None:
    function = yaml.safe_load(block("custom_reward_function:"))["reward"]["custom_reward_function"]
    ScoringPlan(function["reward_kwargs"]["routes"])
    ScoringPlan(yaml.safe_load(block("name: verdict_judge")))
    example = yaml.safe_load(block('"*/anchor"'))
    example["options"]["verdict_judge"] = {"template": "{response}"}
    ScoringPlan(**example)


def test_every_shipped_function_is_in_the_table() -> None:
    shipped = {name for name in reward_names() if get_reward(name).call.__module__.startswith("reward_fns")}
    assert shipped == set(re.findall(r"^\| `(\w+)` \| (?:anchors|open)", TEXT, re.MULTILINE))
