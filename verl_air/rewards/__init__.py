"""Rewards: rules for anchors, served judges for open variants, and yours.

A reward function takes a :class:`Sample` and returns a :class:`Verdict`, a number, or :data:`ABSTAIN`; a full example
is in docs/rewards.md.
"""

from verl_air.errors import ConfigError, RewardError
from verl_air.rewards.format import STYLES, FormatRule, Style, extract_answer, last_boxed
from verl_air.rewards.judge import (
    JudgeClient,
    JudgeError,
    JudgeSettings,
    Prompt,
    Rendering,
    fields_of,
    require_response,
    sanitize,
)
from verl_air.rewards.registry import get_reward, register_reward, reward_names
from verl_air.rewards.routes import ScoringPlan
from verl_air.rewards.score import compute_score, self_check
from verl_air.rewards.types import ABSTAIN, REWARD_KEYS, Outcome, Sample, Verdict
from verl_air.rewards.worker import WorkerPool, WorkerTimeoutError
from verl_air.settings import Settings

__all__ = [
    "ABSTAIN",
    "REWARD_KEYS",
    "STYLES",
    "ConfigError",
    "FormatRule",
    "JudgeClient",
    "JudgeError",
    "JudgeSettings",
    "Outcome",
    "Prompt",
    "Rendering",
    "RewardError",
    "Sample",
    "ScoringPlan",
    "Settings",
    "Style",
    "Verdict",
    "WorkerPool",
    "WorkerTimeoutError",
    "compute_score",
    "extract_answer",
    "fields_of",
    "get_reward",
    "last_boxed",
    "register_reward",
    "require_response",
    "reward_names",
    "sanitize",
    "self_check",
]
