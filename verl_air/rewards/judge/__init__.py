"""Served judges.

==================  ===================================================================
:mod:`.client`      what a reward function asks: log-odds, text, a classifier's outputs
:mod:`.in_process`  the same log-odds from a small model in this process
:mod:`.prompts`     templates around text that is not trusted
:mod:`.tokens`      the judge's tokenizer: verdict words, and the guard of the structure
:mod:`.writer`      templates and texts become what is sent, cut until it fits
:mod:`.log_odds`    the question that has log-odds for an answer, and reading them
:mod:`.answers`     reading what the server says
:mod:`.server`      which model is served, and how long its prompts may be
:mod:`.transport`   requests, bounded in number and time
:mod:`.cache`       verdicts remembered on disk
:mod:`.settings`    the recipe's ``reward_kwargs.judge``
:mod:`.shared`      one client an event loop
==================  ===================================================================
"""

from verl_air.rewards.judge.client import JudgeClient
from verl_air.rewards.judge.errors import JudgeError
from verl_air.rewards.judge.prompts import Prompt, fields_of, neutralise
from verl_air.rewards.judge.settings import JudgeSettings
from verl_air.rewards.judge.shared import client_for, close_clients

__all__ = [
    "JudgeClient",
    "JudgeError",
    "JudgeSettings",
    "Prompt",
    "client_for",
    "close_clients",
    "fields_of",
    "neutralise",
]
