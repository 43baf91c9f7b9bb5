"""A judge server: where it is, which model it serves, and how long that model's prompts may be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from verl_air.rewards.judge.answers import dig
from verl_air.rewards.judge.errors import JudgeError
from verl_air.rewards.judge.settings import JudgeSettings
from verl_air.rewards.judge.transport import Transport


class JudgeServer:
    """One server. What the settings do not say is asked from ``GET /v1/models``, once.

    Args:
        settings: of the recipe.
        router_address: of verl's router, used unless the settings name a server.
        needs_limit: the length of prompts matters to the caller.
    """

    def __init__(self, settings: JudgeSettings, router_address: str | None, needs_limit: bool) -> None:
        root = (settings.base_url or f"http://{router_address}").rstrip("/").removesuffix("/v1")
        self._transport = Transport(root, settings, hides_refusals=settings.base_url is None)
        self._model = settings.model
        self.max_prompt_tokens = settings.max_prompt_tokens
        self._known = self._model is not None and (self.max_prompt_tokens is not None or not needs_limit)
        self._asking = asyncio.Lock()

    async def model(self) -> str:
        """The model's name; after this, ``max_prompt_tokens`` is set if the server tells it.

        Raises:
            JudgeError: no answer, or no model in it.
        """
        if not self._known:
            async with self._asking:
                if not self._known:
                    await self._ask()
        return str(self._model)

    async def post(self, path: str, payload: dict[str, Any]) -> Any:
        """Send a request; see :meth:`.transport.Transport.request`."""
        return await self._transport.request("POST", path, payload)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def _ask(self) -> None:
        models = dig(await self._transport.request("GET", "/v1/models"), "data")
        cards = [card for card in models if isinstance(card, Mapping)] if isinstance(models, list) else []
        card = next((card for card in cards if self._model in (None, card.get("id"))), {})
        if self._model is None and not isinstance(card.get("id"), str):
            raise JudgeError(f"{self._transport.root}/v1/models names no model: {models!r}")
        self._model = self._model or card["id"]
        if self.max_prompt_tokens is None and isinstance(card.get("max_model_len"), int):
            self.max_prompt_tokens = card["max_model_len"]
        self._known = True
