"""Served judges.

================  =====================================================================
:mod:`.client`    what a reward function asks: log-odds, text, a classifier's outputs
:mod:`.prompts`   templates around text that is not trusted
:mod:`.tokens`    the judge's tokenizer: verdict words, and the guard of the structure
:mod:`.answers`   reading what the server says
:mod:`.transport` requests, bounded in number and time
:mod:`.cache`     verdicts remembered on disk
:mod:`.settings`  the recipe's ``reward_kwargs.judge``
:mod:`.shared`    one client an event loop
================  =====================================================================
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
