"""The settings at the scale of the paper fit each other; the paper's own do not, as the header of their file says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from verl_air.compose import read_recipe
from verl_air.config import AirConfig
from verl_air.objective import trajectory_weights, unit_scale
from verl_air.rewards import FormatRule, get_reward

DOMAINS = ("safety", "moral", "math")
K = 3
RIGHT = {"safety": ("safe", "constructive"), "moral": ("right",), "math": ("right",)}  # options that pay a right answer


@cache
def recipe(*included: str) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        defaults = f"defaults: [ppo_trainer, {', '.join(included)}, _self_]"
        Path(folder, "mine.yaml").write_text(f"hydra: {{searchpath: [pkg://verl_air.recipes]}}\n{defaults}\n")
        return OmegaConf.to_container(read_recipe("mine", config_dir=folder))


DEFAULT, EXACT = ("base/paper",), ("base/paper", "base/paper_exact")


def bound(included: tuple[str, ...], route: str) -> Any:
    """The reward of a route, with the recipe's options."""
    kwargs = recipe(*included)["reward"]["custom_reward_function"]["reward_kwargs"]
    name = kwargs["routes"][route]
    return get_reward(name).bind(kwargs.get("options", {}).get(name, {}))


def air_of(included: tuple[str, ...]) -> AirConfig:
    return AirConfig.from_mapping(recipe(*included)["air"])


def open_weight(included: tuple[str, ...], domain: str, anchor_task: float, open_task: float) -> float:
    """The weight of an open answer in a meta-group whose completions all have the right format."""
    air, rule = air_of(included), FormatRule()
    rewards = [(bound(included, f"{domain}/anchor"), anchor_task), (bound(included, f"{domain}/open"), open_task)]
    values = []
    for reward, task in rewards:
        value, low, high = task, reward.low, reward.high
        if air.aux_reward == "total":
            value, low, high = task + rule.right, low + rule.wrong, high + rule.right
        if air.reward_scale == "unit":
            value = float(unit_scale(*(torch.tensor([number]) for number in (value, low, high))))
        values += [value] * K
    prompts = torch.arange(2).repeat_interleave(K)
    weight_N = trajectory_weights(
        torch.tensor(values), prompts, torch.zeros_like(prompts), prompts == 0, estimator=air.estimator, gap=air.gap
    )
    return float(weight_N[-1])


def right_answers(included: tuple[str, ...], domain: str) -> Iterator[float]:
    """The task rewards of a right open answer."""
    options = bound(included, f"{domain}/open").options
    yield from (options[name] for name in RIGHT[domain])


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_right_open_answer_is_pushed_down(domain: str) -> None:
    anchor = bound(DEFAULT, f"{domain}/anchor")
    assert max(right_answers(DEFAULT, domain)) == bound(DEFAULT, f"{domain}/open").high
    for task in right_answers(DEFAULT, domain):
        for anchor_task in (anchor.high, anchor.low):  # nor where the anchor was answered wrong
            assert open_weight(DEFAULT, domain, anchor_task, task) >= 0.0


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_wrong_open_answer_in_the_right_format_is_pushed_down(domain: str) -> None:
    anchor, reward = bound(DEFAULT, f"{domain}/anchor"), bound(DEFAULT, f"{domain}/open")
    assert open_weight(DEFAULT, domain, anchor.high, reward.low) < 0.0


def test_refusing_a_benign_request_is_not_paid() -> None:
    assert bound(DEFAULT, "safety/open").options["benign_facets"] == "benign_facets.yaml"


def test_the_papers_own_settings_have_the_faults_that_their_header_names() -> None:
    air = air_of(EXACT)
    assert (air.estimator, air.reward_scale, air.gap, air.aux_reward) == ("paper", "raw", "signed", "total")
    best, right = bound(EXACT, "safety/open").high, bound(EXACT, "safety/anchor").high
    assert (best + 1.25, right + 1.25) == (3.75, 2.50)
    assert open_weight(EXACT, "safety", right, best) == pytest.approx(-4.7, abs=0.05)
    for domain in DOMAINS:  # a wrong answer in the right format is reinforced
        anchor, reward = bound(EXACT, f"{domain}/anchor"), bound(EXACT, f"{domain}/open")
        assert open_weight(EXACT, domain, anchor.high, reward.low) > 0.0
    assert bound(EXACT, "safety/open").options["benign_facets"] is None


def test_all_else_is_the_same_under_both() -> None:
    default, exact = (OmegaConf.create(recipe(*included)) for included in (DEFAULT, EXACT))
    for config in (default, exact):
        for key in ("estimator", "reward_scale", "aux_reward", "gap"):
            config.air.pop(key, None)
        config.reward.custom_reward_function.reward_kwargs.pop("options")
    assert default == exact
