"""Accelerate configurations, which `engine.launch` names. Imports nothing heavy: plans and checks read them, too."""

from typing import Any

import yaml

from acelib.core import ROOT, EngineError


def configuration(name: str) -> dict[str, Any]:
    """The accelerate configuration that `engine.launch` names, with its `file`, and both `num_processes` and
    `num_machines`. Raises EngineError when there is no such file, or it is none."""
    path = ROOT / name
    try:
        values = {"num_machines": 1} | yaml.safe_load(path.read_text(encoding="utf-8"))
        numbers = {key: int(values[key]) for key in ("num_processes", "num_machines")}
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        known = ", ".join(f"configs/{one.name}" for one in sorted((ROOT / "configs").glob("*.yaml")))
        raise EngineError(
            f"{name} is no accelerate configuration that says num_processes ({type(error).__name__}); set "
            f"engine.launch to one of {known}, or none."
        ) from error
    return values | numbers | {"file": str(path)}


def processes_per_machine(name: str) -> tuple[int, int]:
    """Processes on one machine and on all, of `engine.launch`: "none" or an accelerate configuration.

    Raises as `configuration` does.
    """
    if name == "none":
        return 1, 1
    config = configuration(name)
    return max(1, config["num_processes"] // config["num_machines"]), config["num_processes"]
