"""verl's single-turn agent loop with a random seed for each completion.

vLLM otherwise draws from one random state for all requests, which a resumed run does not have. verl's own
``rollout.full_determinism`` gives every request of a replica the same seed: the completions of a prompt are then alike.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop


class SeededLoop(SingleTurnAgentLoop):
    """The seed depends on the prompt and on which of its completions this is, and on nothing else."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        seed = crc32(f"{list(kwargs['raw_prompt'])} {kwargs['session_id']}".encode())
        return await super().run({**sampling_params, "seed": seed}, **kwargs)
