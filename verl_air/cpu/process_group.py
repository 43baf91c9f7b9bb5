"""verl names a back end for the CPU and one for the device; where both are the CPU, torch refuses the pair."""

from __future__ import annotations

from typing import Any

from wrapt import wrap_function_wrapper


def use_single_backend(module: Any) -> None:
    """Wrap ``verl.utils.distributed.initialize_global_process_group_ray`` so that its default back end is plain gloo.

    verl builds ``"cpu:gloo,cpu:gloo"`` and torch answers "Duplicate device type cpu".
    """

    def with_gloo(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        timeout_second = args[0] if args else kwargs.get("timeout_second")
        backend = args[1] if len(args) > 1 else kwargs.get("backend")
        return wrapped(timeout_second=timeout_second, backend=backend or "cpu:gloo")

    wrap_function_wrapper(module, "initialize_global_process_group_ray", with_gloo)
