"""Served judges.

==================  =================================================================================
:mod:`.settings`    the recipe's ``reward_kwargs.judge``
:mod:`.prompts`     from templates and untrusted texts to what is sent: sanitized, cut, tokenized
:mod:`.verdicts`    the question that has log-odds for an answer, reading it, and the cache on disk
:mod:`.transport`   one server: requests bounded in number and time
:mod:`.client`      what a reward function asks: log-odds, text, a classifier's outputs
:mod:`.in_process`  the same log-odds from a small model in this process
==================  =================================================================================
"""

from verl_air.rewards.judge.client import JudgeClient, client_for, close_clients
from verl_air.rewards.judge.prompts import Prompt, fields_of, require_response, sanitize
from verl_air.rewards.judge.settings import JudgeError, JudgeSettings

__all__ = [
    "JudgeClient",
    "JudgeError",
    "JudgeSettings",
    "Prompt",
    "client_for",
    "close_clients",
    "fields_of",
    "require_response",
    "sanitize",
]
