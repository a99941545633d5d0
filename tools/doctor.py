"""What an issue should say of a machine, as text to paste.

    python -m tools.doctor [--profile NAME] [--run-dir DIR]      (`make doctor`)

Names no token, no value of the environment, and no path above the home folder. What is broken is told in its own line
and keeps no other line from being told. (`torch.utils.collect_env` says more of the machine, with values of the
environment, and nothing of the judge or of the profile's needs.)
"""

import argparse
import os
import platform
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from acelib import __version__, judge, models, preflight  # lazy doors: what cannot be imported spoils one line only
from acelib.core import ROOT, CourseError, Profile, installed, load_profile
from tools.together import misfits

PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "numpy")
OPTIONAL = ROOT / "requirements-gpu.txt"


def doctor(profile: Profile, run_dir: Path) -> str:
    """Versions, machine, isolation and the checks of `profile` for a run in `run_dir`, one line each."""
    told: dict[str, Callable[[], str]] = {
        "acelib": lambda: f"{__version__}, profile {profile.name} on {profile.models.device}, {profile.models.dtype}",
        "system": lambda: f"{platform.platform()}, Python {platform.python_version()}",
        "packages": lambda: _versions(PACKAGES),
        "optional": lambda: optional(profile),
        "threads": lambda: _threads(profile),
        "container": lambda: container(profile),
        "GPU": _gpu,
        "judge": _isolation,
        "profile": lambda: (
            "; ".join(misfits(profile, gpus=len(models.machine_facts().gpus))) or "its parts go together"
        ),
        "checks": lambda: "\n" + preflight.report(preflight.check_machine(profile, run_dir)),
    }
    text = "\n".join(f"{name:10}{_told(look)}" for name, look in told.items())
    return text.replace(str(ROOT), "<checkout>").replace(str(Path.home()), "~")


def _told(look: Callable[[], str]) -> str:
    try:
        return look()
    except Exception as error:  # whatever is broken is what the issue is about
        return f"cannot be told: {type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"


def _versions(packages: tuple[str, ...]) -> str:
    return ", ".join(f"{package} {installed(package)}" for package in packages)


def optional(profile: Profile, requirements: Path = OPTIONAL) -> str:
    """Packages for GPUs; FAIL where one is not as pinned, or is missing and `profile` needs them."""
    pins = re.findall(r"^([\w-]+)==(\S+)", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    engine = profile.engine
    needed = profile.models.device == "cuda" and (engine.generation == "vllm" or engine.quantise == "nf4")
    told, wrong = [], False
    for package, pinned in pins:
        mine = installed(package)
        fails = mine.split("+")[0] != pinned and (needed or mine != "missing")
        wrong |= fails
        told.append(f"{package} {mine}" + (f" (FAIL: {pinned} is pinned)" if fails else ""))
    more = f"; run `.venv/bin/pip install -r {requirements.name}` and repeat this" if wrong else ""
    return ", ".join(told) + more


def _threads(profile: Profile) -> str:
    torch_takes, waiting = import_module("torch").get_num_threads(), f"spin {os.environ['GOMP_SPINCOUNT']} times"
    allowed = f"torch would take {torch_takes}, the profile allows {profile.threads}"
    return f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {allowed}; idle ones {waiting}"


def container(profile: Profile, folder: Path = Path("/sys/fs/cgroup")) -> str:
    """The limits of a container (control group 2), of which `free` and `nproc` say nothing: they show its host."""
    try:
        memory, quota = ((folder / name).read_text("utf-8").split() for name in ("memory.max", "cpu.max"))
    except OSError:
        return "no limits to be seen"
    told = [f"{int(memory[0]) / 2**30:.1f} GiB of memory"] if memory[0] != "max" else []
    if quota[0] != "max":
        cores, workers = int(quota[0]) / int(quota[1]), profile.judge.workers
        more = (
            f", fewer than judge.workers ({workers}): lower it, or programs wait for each other"
            if cores < workers
            else ""
        )
        told.append(f"{cores:g} cores{more}")
    return f"limited to {' and '.join(told)}" if told else "no limits"


def _gpu() -> str:
    facts = models.machine_facts()
    found = ", ".join(gpu.name for gpu in facts.gpus) or f"none ({facts.said})"
    return f"{found}; driver {facts.driver or 'none'}, torch {facts.torch}"


def _isolation() -> str:
    """The strongest isolation that works here, and why no stronger one does."""
    told = []
    for level in judge.LEVELS:
        found = preflight.check_judge(make_judge=partial(judge.Judge, isolation=level))
        told.append(found.found if found.ok else f"not {level}: {found.found.partition('. ')[0]}")
        if found.ok:
            break
    return "; ".join(reversed(told))


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.doctor", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--profile", default="pocket", help="whose needs are checked: a name in profiles/, or a path")
    parser.add_argument("--run-dir", type=Path, help="where a run would write (default: runs/<profile>)")
    asked = parser.parse_args(words)
    try:
        profile = load_profile(asked.profile)
    except CourseError as error:
        sys.exit(str(error))
    print(doctor(profile, asked.run_dir or ROOT / "runs" / profile.name))


if __name__ == "__main__":
    main(sys.argv[1:])
