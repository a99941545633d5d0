"""What a stage's result depends on, as one digest, so that an unchanged stage can be skipped and a changed one is not.

Taken together: the code of the function that builds it (and of the notebook functions it calls), the source of every
acelib module it reaches, the plain values and profile entries it reads, and the weights of the models it uses.
"""

import ast
import dis
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from acelib.core.profiles import ROOT, Profile

SOURCES = (".py", ".yaml")
TOOLS = {"core", "course", "plots", "preflight"}  # rooms that move and show results; they do not make them
# Changing these changes how fast a result comes, not what it is. So do those that `Profile.deciding` leaves out.
SPEED_ONLY = {("name",), ("threads",), ("remote",), ("plan",)} | {
    ("engine", key)
    for key in ("launch", "vllm_mode", "vllm_server", "vllm_memory", "vllm_parallel", "checkpoints", "cluster")
}
# Of these a builder depends only on the entries it names: another policy does not change what the teacher says.
BY_ENTRY = {"data", "models", "prompts"}


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def path_digest(path: str | Path) -> str:
    """Digest of a file, or of all files of a folder with their relative names."""
    path = Path(path)
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    parts = []
    for file in files:
        stat = file.stat()
        parts.append((str(file.relative_to(path)), _file_digest(str(file), stat.st_mtime_ns, stat.st_size)))
    return digest(parts)


@lru_cache(maxsize=4096)
def _file_digest(file: str, mtime_ns: int, size: int) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@lru_cache(maxsize=512)
def _parse(file: Path, mtime_ns: int) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's syntax tree (comments do not count) and the acelib modules it imports; digest of data."""
    if file.suffix != ".py":
        return path_digest(file), ()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = file.relative_to(ROOT).parts[: -node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            imported += [base, *(f"{base}.{name.name}" for name in node.names)]
    shape = ast.dump(tree).replace(", type_params=[]", "")  # so that Python 3.11 and 3.12 agree
    return digest(shape), tuple(name for name in imported if name.startswith("acelib."))


def _module_files(name: str) -> list[Path]:
    """The files of a room, or of a module: its source and the data beside it under the same name."""
    base = ROOT.joinpath(*name.split("."))
    files = base.rglob("*") if base.is_dir() else (base.with_suffix(end) for end in SOURCES)
    return sorted(file for file in files if file.suffix in SOURCES and file.is_file())


def modules_digest(names: Iterable[str]) -> str:
    """Digest of the sources of acelib modules and of all acelib modules they import, tools left out."""
    waiting, digests = list(names), {}
    while waiting:
        name = waiting.pop()
        if name.split(".")[1:2] and name.split(".")[1] in TOOLS:
            continue
        for file in _module_files(name):
            key = str(file.relative_to(ROOT))
            if key not in digests:
                digests[key], imported = _parse(file, file.stat().st_mtime_ns)
                waiting.extend(imported)
    return digest(digests)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)


def _plain(value: Any) -> Any:
    """`value` as JSON data, or raise TypeError. A string that names something in the repository counts by content."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (str, Path)):
        inside = str(value).removeprefix(f"{ROOT}/")  # wherever the checkout lies
        named = re.fullmatch(r"data/[^\n]{1,250}", inside)  # longer ones no file system has
        return path_digest(ROOT / inside) if named and (ROOT / inside).exists() else inside
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_plain(one)) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    raise TypeError(type(value))


def profile_values(profile: Profile, names: set[str] | None = None) -> dict[str, Any]:
    """The profile's sections that code with these attribute names reads; all of them when it names none."""
    values = profile.to_dict()
    values |= profile.deciding(*(name for name, part in values.items() if isinstance(part, dict)))
    for where in SPEED_ONLY:
        functools.reduce(dict.__getitem__, where[:-1], values).pop(where[-1])
    sections = {item.name for item in fields(Profile)} & (names or set()) & values.keys()
    if not sections:
        return _plain(values)
    chosen = {"seed": values["seed"]}
    for section in sections:
        value = values[section]
        used = names & value.keys() if section in BY_ENTRY else None
        chosen[section] = {key: value[key] for key in used} if used else value
    return _plain(chosen)


class _Dependencies:
    """What a function uses: code, acelib modules, names of attributes, plain values, and the profile."""

    def __init__(self):
        self.code: list[Any] = []
        self.modules: set[str] = set()
        self.names: set[str] = set()
        self.values: dict[str, Any] = {}
        self.profile: Profile | None = None
        self.visited: set[int] = set()

    def function(self, function: Callable) -> None:
        if isinstance(function, functools.partial):
            for i, one in enumerate([*function.args, *function.keywords.values()]):
                self.value(f"argument {i}", one)
            return self.value("partial", function.func)
        function = getattr(function, "__wrapped__", function)
        function = getattr(function, "__func__", function)
        if id(function) in self.visited or not hasattr(function, "__code__"):
            return
        self.visited.add(id(function))
        read: set[str] = set()  # as globals; attributes may have the same names
        for code in _codes(function.__code__):
            constants = sorted(repr(one) for one in code.co_consts if not isinstance(one, (CodeType, frozenset)))
            self.code.append([code.co_code.hex(), code.co_names, code.co_varnames, constants])
            self.names |= set(code.co_names)
            read |= {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        for name in sorted(read & function.__globals__.keys()):
            self.value(name, function.__globals__[name])
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            self.value(name, cell.cell_contents)
        for i, default in enumerate([*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]):
            self.value(f"{function.__name__} default {i}", default)

    def value(self, name: str, value: Any) -> None:
        home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        profile = value if isinstance(value, Profile) else getattr(value, "profile", None)
        if isinstance(profile, Profile):
            self.profile = profile
        elif isinstance(value, (ModuleType, type)) or callable(value) and hasattr(value, "__code__"):
            if str(home).split(".")[0] == "acelib":
                self.modules.add(str(home))
            elif callable(value) and "site-packages" not in getattr(value, "__code__", _codes.__code__).co_filename:
                self.function(value)
        elif isinstance(value, functools.partial):
            self.function(value)
        elif isinstance(getattr(value, "name_or_path", None), str):
            folder = Path(value.name_or_path)
            self.values[name] = path_digest(folder) if folder.exists() else str(folder)
        else:
            try:
                self.values[name] = _plain(value)
            except (TypeError, OSError):
                pass


def fingerprint(function: Callable, params: Any = None) -> str:
    """Digest of everything the result of calling `function` depends on, apart from declared input artefacts."""
    found = _Dependencies()
    found.function(function)
    parts = [found.code, modules_digest(sorted(found.modules)), found.values, _plain(params)]
    if found.profile is not None:
        parts.append(profile_values(found.profile, found.names))
    return digest(parts)
