"""megatron-core 0.16.1 cannot resume its distributed optimizer when torch's AdamW replaces that of TE or Apex.

Three faults of ``megatron/core/optimizer/distrib_optimizer.py`` on that path, which no GPU set-up takes:

=============  ========================================================================================================
line 641       a fresh AdamW has no state, and its step is asked for: give each parameter an empty state
line 855       fp32 weights are written in place while autograd watches: load without it
line 821, 938  all parameters get one step tensor, which each of them then counts up, and which loading overwrites:
               give each parameter its own, from the checkpoint. Without this a resumed run is wrong and does not say so
=============  ========================================================================================================
"""

from __future__ import annotations

from typing import Any

import torch


def make_resumable() -> None:
    """Fix the three, once per process."""
    from megatron.core.optimizer.distrib_optimizer import HAVE_APEX_OR_TE, DistributedOptimizer

    assert not HAVE_APEX_OR_TE, "with Transformer Engine or Apex megatron-core needs no help"
    if getattr(DistributedOptimizer, "resumable", False):
        return
    DistributedOptimizer.resumable = True
    describe, load = DistributedOptimizer.sharded_state_dict, DistributedOptimizer.load_state_dict

    def sharded_state_dict(self: Any, model_state: Any, is_loading: bool = False, *args: Any, **kwargs: Any) -> Any:
        if is_loading and not self.optimizer.state:
            _give_empty_state(self.optimizer)
        return describe(self, model_state, is_loading, *args, **kwargs)

    def load_state_dict(self: Any, state: Any) -> None:
        with torch.no_grad():
            load(self, state)
        steps = {group["step"] for group in state["optimizer"]["param_groups"]}
        assert len(steps) == 1, steps
        for values in self.optimizer.state.values():
            values["step"] = torch.tensor(float(*steps))

    DistributedOptimizer.sharded_state_dict = sharded_state_dict
    DistributedOptimizer.load_state_dict = load_state_dict


def _give_empty_state(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
