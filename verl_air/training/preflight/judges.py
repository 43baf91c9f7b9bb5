"""Can the recipe's judges be asked, and do they tell right from wrong? In bounded time, before anything starts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from omegaconf import DictConfig, OmegaConf

from verl_air.config import AirConfig
from verl_air.data.schema import read_extra_columns
from verl_air.rewards.probe import probe_judge, rehearse_judge
from verl_air.rewards.registry import BoundReward
from verl_air.rewards.routes import ScoringPlan
from verl_air.training.preflight.inputs import OUR_REWARD, plan_of, readable
from verl_air.training.preflight.models import JUDGE, read_model

FIRST_ROWS = 4
"""Rows of a kind that get canned replies at a start; all of them only if these leave a doubt."""
LIMIT_S = 120.0
"""What the proof of a route's judge may take at a start."""

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class _Kind(NamedTuple):
    """Rows of the training data that one route scores. row: ``extra_info`` of one of them."""

    bound: BoundReward
    row: dict[str, Any]
    rows: int


def check_judges_answer(config: DictConfig) -> list[str]:
    """Ask each judge once, for each kind of row that it judges, before anything starts.

    A judge that verl will serve is not there yet: what it would be asked is written with its tokenizer, and not sent.

    Returns:
        A line per server: what leaves this machine, and about how much the run will ask for at most.

    Raises:
        ConfigError: a judge cannot work; see :func:`~verl_air.rewards.probe.probe_judge`.
    """
    if str(config.reward.custom_reward_function.path) != OUR_REWARD:
        return []
    plan = plan_of(config)
    if not any(bound.judge for bound in plan.rewards.values()):
        return []
    kinds = _kinds(config, plan)
    judged = [kind for kind in kinds if kind.bound.judge is not None]
    _rehearse_served(config, plan, [kind for kind in judged if not plan.judge_of(kind.bound).is_elsewhere])
    total, batch = sum(kind.rows for kind in kinds), int(config.data.train_batch_size)
    steps = config.trainer.total_training_steps or config.trainer.total_epochs * total // batch
    completions = int(steps) * batch * int(config.actor_rollout_ref.rollout.n)
    asked: dict[tuple[str, str], list[float]] = {}
    for bound, row, number in judged:
        judge = plan.judge_of(bound)
        if not judge.is_elsewhere:
            continue
        requests, tokens = asyncio.run(probe_judge(plan, bound, row, int(config.data.max_response_length)))
        if judge.base_url is not None:
            sums, count = asked.setdefault((str(bound.judge), judge.base_url), [0.0, 0.0]), completions * number / total
            sums[:] = sums[0] + count * requests, sums[1] + count * tokens
    return [
        f"judge {name!r} answers at {address}; requests and responses "
        f"{'stay on' if urlsplit(address).hostname in _THIS_MACHINE else 'leave'} this machine; the run asks about "
        f"{requests:,.0f} times, for at most about {tokens:,.0f} tokens, validation not counted"
        for (name, address), (requests, tokens) in asked.items()
    ]


def check_judges_separate(config: DictConfig, air: AirConfig) -> str:
    """Judges that can be reached before training tell replies of known kind apart; returns what was found.

    Raises:
        ConfigError: one of them does not, or gives no verdicts.
    """
    from verl_air.data.check.judge import prove_judges, require_judges  # imports pandas

    function = config.reward.custom_reward_function
    if not air.check_judge or str(function.path) != OUR_REWARD:
        return "not checked" + ("" if air.check_judge else " (air.check_judge=False)")
    kwargs: Any = OmegaConf.to_container(function.reward_kwargs, resolve=True)
    files = readable(config, "train_files", "val_files")
    return require_judges(prove_judges(kwargs, files, first=FIRST_ROWS, limit_s=LIMIT_S))


def _kinds(config: DictConfig, plan: ScoringPlan) -> list[_Kind]:
    found = []
    for path in readable(config, "train_files"):
        rows = read_extra_columns(path, ("domain", "role", "split", "extras"))
        groups = rows.group_by(["domain", "role", "split"], use_threads=False)
        for kind in groups.aggregate([("extras", "first"), ("extras", "count")]).to_pylist():
            row = {**kind, "extras": kind["extras_first"]}
            bound = plan.reward_for(f"{kind['domain']}/{kind['split']}", row)
            found.append(_Kind(bound, row, kind["extras_count"]))
    return found


def _rehearse_served(config: DictConfig, plan: ScoringPlan, kinds: Sequence[_Kind]) -> None:
    """What a judge that verl will serve would be asked can be written with its tokenizer, and fits."""
    model = read_model(config, JUDGE) if kinds else None
    if model is not None:  # else :func:`~verl_air.training.preflight.models.check_model` has said so
        longest = config.reward.reward_model.rollout.max_model_len or model.context
        for bound, row, _ in kinds:
            asyncio.run(rehearse_judge(plan, bound, row, model.tokenizer, longest))
