"""Served judges.

==================  =================================================================================
:mod:`.settings`    the recipe's ``reward_kwargs.judge``
:mod:`.prompts`     from templates and untrusted texts to what is sent: sanitized, cut, tokenized
:mod:`.verdicts`    questions that have log-probs for an answer, and reading answers
:mod:`.transport`   one server: requests bounded in number and time
:mod:`.store`       the cache of verdicts, and the count of a run's requests, on disk
:mod:`.client`      what a reward function asks: log-odds, text, a classifier's outputs
:mod:`.in_process`  the same log-odds from a small model in this process
==================  =================================================================================
"""

from verl_air.rewards.judge.client import JudgeClient, client_for, close_clients
from verl_air.rewards.judge.prompts import Prompt, Rendering, fields_of, require_response, sanitize
from verl_air.rewards.judge.settings import JudgeError, JudgeSettings

__all__ = [
    "JudgeClient",
    "JudgeError",
    "JudgeSettings",
    "Prompt",
    "Rendering",
    "client_for",
    "close_clients",
    "fields_of",
    "require_response",
    "sanitize",
]
