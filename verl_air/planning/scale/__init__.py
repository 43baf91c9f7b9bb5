"""A model of step time and of whole meta-groups at 8 to 4096 GPUs: simulated, not measured."""

from verl_air.planning.scale.assumptions import MODES, Assumptions
from verl_air.planning.scale.simulation import Outcome, simulate
from verl_air.planning.scale.sweep import Cost, conclusions, group_cost, remedies, scaling

__all__ = [
    "MODES", "Assumptions", "Cost", "Outcome", "conclusions", "group_cost", "remedies", "scaling", "simulate",
]  # fmt: skip
