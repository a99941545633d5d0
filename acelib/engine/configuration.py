"""The accelerate configurations that `engine.launch` names: how many processes, on how many machines."""

from pathlib import Path
from typing import Any

import yaml

from acelib.core import ROOT, EngineError


def configuration(name: str) -> dict[str, Any]:
    """The accelerate configuration that `engine.launch` names. Raises EngineError when there is no such file, and
    EngineError when it is none."""
    path = Path(name) if Path(name).is_absolute() else ROOT / name
    if not path.is_file():
        known = ", ".join(f"configs/{one.name}" for one in sorted((ROOT / "configs").glob("*.yaml")))
        raise EngineError(f"There is no accelerate configuration {name}; set engine.launch to one of {known}, or none.")
    processes_per_machine(str(path))
    return yaml.safe_load(path.read_text(encoding="utf-8")) | {"file": str(path)}


def processes_per_machine(launch: str) -> tuple[int, int]:
    """Processes on one machine and on all, of `engine.launch`: "none" or the path of an accelerate configuration.

    Raises EngineError when there is no such file or it is none.
    """
    if launch == "none":
        return 1, 1
    try:
        values = yaml.safe_load(Path(launch).read_text(encoding="utf-8"))
        everywhere = int(values["num_processes"])
        return max(1, everywhere // int(values.get("num_machines", 1))), everywhere
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise EngineError(
            f"{launch} is no accelerate configuration that says num_processes ({type(error).__name__}); "
            "correct engine.launch, or set it to none."
        ) from error
