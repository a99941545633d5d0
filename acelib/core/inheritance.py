"""The files that a profile is made of. `make` asks for the device before anything is installed, hence the standard
library alone: `python3 acelib/core/inheritance.py PROFILE [KEY=VALUE ...]`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def profile_files(name_or_path: str | Path) -> list[Path]:
    """`profiles/<name>.yaml` or the given .yaml file, then the file named by its `extends:` line, and so on.

    The last one may be missing, or one of those before it where profiles extend each other in a circle.
    """
    path = Path(name_or_path)
    files = [path.resolve() if path.suffix in (".yaml", ".yml") else ROOT / "profiles" / f"{path}.yaml"]
    while files[-1].is_file() and files[-1] not in files[:-1]:
        parent = re.search(r"^extends: *[\"']?([^\s#\"']+)", files[-1].read_text(encoding="utf-8"), re.MULTILINE)
        if parent is None:
            break
        beside = files[-1].parent / f"{parent[1]}.yaml"
        files += [beside] if beside.is_file() else profile_files(parent[1])[:1]
    return files


def value(key: str, name_or_path: str, overrides: list[str]) -> str:
    """The word that a profile with `overrides` has for a key such as `models.device`, whose last part is no other's, or
    "" where it is not to be found."""
    texts = [file.read_text(encoding="utf-8") for file in profile_files(name_or_path) if file.is_file()]
    found = [re.match(rf"{re.escape(key)}=(\w+)", one) for one in reversed(overrides)]
    found += [re.search(rf"^[^#\n]*[{{, ]{key.partition('.')[2]}: *(\w+)", text, re.MULTILINE) for text in texts]
    return next((match[1] for match in found if match), "")


if __name__ == "__main__":
    print(*(value(key, sys.argv[1], sys.argv[2:]) for key in ("models.device", "engine.generation", "engine.quantise")))
