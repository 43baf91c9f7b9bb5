"""``verl-air plan RECIPE``: memory of each GPU, batches and parallel sizes of a recipe, before a cluster is asked for.

RECIPE is a YAML file, or a name in ``--config-dir``. Exit status 2, with one line, if something does not divide or
cannot fit. The numbers are estimates; their assumptions are printed beside them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from verl_air.compose import compose_recipe
from verl_air.errors import ConfigError
from verl_air.planning import GIB, Plan, make_plan


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser("plan", help="memory and sizes of a recipe", description=__doc__)
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="a YAML file, or a name in --config-dir")
    add("--config-dir", default="recipes", help="folder of recipes (default: recipes)")
    add("--model-config", metavar="FILE", help="config.json of the model, if it is neither local nor known")
    add("--gpu-gib", type=float, default=79.0, metavar="N", help="memory of a GPU in GiB (default: 79, an 80 GB card)")
    add("overrides", nargs="*", help="Hydra overrides for the recipe")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the plan.

    Raises:
        ConfigError: the recipe cannot work on these GPUs; names the first reason.
    """
    if args.gpu_gib <= 0:
        raise ConfigError(f"--gpu-gib {args.gpu_gib:g}: must be above 0")
    folder, name = args.config_dir, args.recipe
    if args.recipe.endswith((".yaml", ".yml")):
        folder, name = Path(args.recipe).parent, Path(args.recipe).stem
    config = compose_recipe(folder, name, args.overrides)
    plan = make_plan(config, args.gpu_gib * GIB, args.model_config)
    print(describe(plan, args.gpu_gib), flush=True)
    if plan.faults:
        others = f" (and {len(plan.faults) - 1} more, listed above)" if len(plan.faults) > 1 else ""
        raise ConfigError(f"{name}: {plan.faults[0]}{others}")
    return 0


def describe(plan: Plan, gpu_gib: float) -> str:
    """The plan as text."""
    model, batch = plan.model, plan.batch
    active = f", {model.active_parameters / 1e9:.2f} B active" if model.experts else ""
    lines = [
        f"model    {model.parameters / 1e9:.2f} B parameters{active} "
        f"({model.family}, {model.layers} layers of {model.hidden})",
        f"trainer  {plan.layout}",
        *(f"vLLM     {e.key}: {e.replicas} engine(s), tp {e.tensor}, on {e.gpus} GPU(s)" for e in plan.engines),
        f"step     {batch.intents} intents x {batch.group_size} prompts x {batch.completions} completions = "
        f"{batch.trajectories} trajectories; {batch.updates} update(s), "
        f"{batch.mini_batch_prompts * batch.completions / plan.layout.data:g} trajectories a rank (dp) in each",
        f"lengths  {batch.prompt_length} + {batch.response_length} tokens; a micro-batch holds up to "
        f"{batch.micro_batch_tokens} tokens on a GPU",
    ]
    for phase in plan.phases:
        lines += ["", f"{phase.name}: GiB on one GPU of {gpu_gib:g}"]
        lines += [f"  {part.name:<32}{part.bytes / GIB:>7.1f}  {part.note}" for part in phase.parts]
        lines.append(f"  {'together':<32}{phase.bytes / GIB:>7.1f}")
    if plan.host_bytes:
        lines += ["", f"offloaded to the memory of each node: {plan.host_bytes / GIB:.0f} GiB"]
    lines += [f"note: {remark}" for remark in plan.remarks]
    lines += [f"fault: {fault}" for fault in plan.faults]
    return "\n".join(lines)
