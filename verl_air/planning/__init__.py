"""What a recipe needs, computed before anything is started. Pure arithmetic: no torch, no verl, no network.

====================  ===============================================================================================
``architecture.py``   a model's sizes and parameter counts, from its ``config.json`` or ``models.yaml``
``layout.py``         parallel sizes, and what does not divide
``batch.py``          intents, prompts, trajectories, micro-batches
``memory.py``         weights, gradients, optimizer states, activations of a training GPU
``rollout.py``        vLLM's share of a GPU, KV cache
``plan.py``           all of it for one recipe
====================  ===============================================================================================
"""

from verl_air.planning.architecture import Architecture, find_architecture, read_architecture
from verl_air.planning.memory import GIB
from verl_air.planning.plan import Plan, check_recipe_sizes, make_plan

__all__ = [
    "GIB",
    "Architecture",
    "Plan",
    "check_recipe_sizes",
    "find_architecture",
    "make_plan",
    "read_architecture",
]
