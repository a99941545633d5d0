"""Seed programs from the reader's own disk: functions of the standard library and of the installed packages.

The paper's third source is functions with a docstring from The Stack; every Python brings some thousands. They are read
as syntax trees: nothing is imported, and nothing is run.
"""

import ast
import builtins
import hashlib
import platform
import re
import site
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from importlib.metadata import Distribution, distributions
from itertools import islice
from pathlib import Path

from acelib.schema import Row, parse

MAX_BYTES = 10**6  # of a file; a larger one is data
LINES = (3, 40)  # of a function, with its docstring
FEWEST_WORDS = 4  # of a docstring
PURE = re.compile(  # modules of the standard library without files, clocks, chance or processes
    r"(__future__|array|base64|binascii|bisect|calendar|cmath|collections|colorsys|copy|datetime|decimal|difflib"
    r"|fractions|functools|hashlib|heapq|html|itertools|json|keyword|math|numbers|operator|re|statistics|string|struct"
    r"|textwrap|typing|unicodedata|zlib)(\.|$)"
)
IMPURE = re.compile(  # of Python's own functions: what touches the world, or asks for an object's inside
    r"__\w+__|open|input|print|exec|eval|compile|globals|locals|vars|breakpoint|exit|quit|help|id|memoryview|dir|type"
    r"|getattr|setattr|delattr|hasattr|callable|super|object|property|classmethod|staticmethod"
)
BUILTINS = frozenset(name for name in vars(builtins) if not IMPURE.fullmatch(name))
_VALUES = (
    "",
    b"",
    0,
    0.0,
    1j,
    (),
    [],
    {},
    set(),
    Fraction(),
    date.min,
    timedelta(),
    Counter(),
    re.compile(""),
    re.match("", ""),
)
METHODS = frozenset(name for value in _VALUES for name in dir(value) if not name.startswith("_"))
TESTS = frozenset({"test", "tests", "testing", "idlelib", "_vendor", "vendor", "vendored", "__pycache__"})


@dataclass(frozen=True)
class Package:
    """A distribution, or the standard library, and its Python files in the order of their names."""

    name: str
    version: str
    licence: str
    root: Path
    files: tuple[str, ...]  # below `root`


@dataclass(frozen=True)
class Installed:
    """A source of seeds (see `sources.Source`): `version` is that of Python, and a digest of the packages."""

    name: str
    version: str
    packages: tuple[Package, ...]

    @classmethod
    def open(cls) -> "Installed":
        """What this Python can import, but for what it finds through links and the current folder."""
        packages = (standard_library(), *site_packages())
        known = "\n".join(f"{one.name} {one.version} {len(one.files)}" for one in packages)
        digest = hashlib.sha256(known.encode()).hexdigest()[:12]
        return cls("installed", f"python {platform.python_version()}, packages {digest}", packages)

    def rows(self, skip: int = 0) -> Iterator[Row]:
        """id, source, program, package, version and licence of every function, from number `skip` on.

        Packages (of the standard library: modules) take turns, one file each, in an order of files that is the same
        wherever the same is installed: the first N rows are of as many packages as possible.
        """
        turns = []
        for package in self.packages:
            taken: Counter = Counter()
            for file in sorted(package.files, key=lambda name: hashlib.sha256(name.encode()).digest()):
                group = file.split("/")[0]
                turns.append((taken[group], package.name.lower(), file, package))
                taken[group] += 1
        turns.sort(key=lambda turn: turn[:3])
        return islice((row for *_, file, package in turns for row in rows_of(package, file)), skip, None)


def standard_library() -> Package:
    """Of the running Python; licence: the PSF's."""
    root = Path(sysconfig.get_path("stdlib"))
    files = (path.relative_to(root) for path in root.rglob("*.py") if "site-packages" not in path.parts)
    return Package("python", platform.python_version(), "PSF-2.0", root, _sources(files))


def site_packages() -> list[Package]:
    """The distributions beside the standard library, by name; of one that is there twice, the first."""
    folders = list(dict.fromkeys([*site.getsitepackages(), sysconfig.get_path("purelib")]))
    found: dict[str, Package] = {}
    for one in distributions(path=folders):
        name = re.sub(r"[-_.]+", "-", str(one.metadata["Name"])).lower()
        files = _sources(Path(file) for file in one.files or ())
        found.setdefault(name, Package(name, str(one.version), licence_of(one), Path(one.locate_file("")), files))
    return [found[name] for name in sorted(found)]


def _sources(files) -> tuple[str, ...]:
    """Python files that are no tests and do not lead out of the package's folder."""
    kept = (path for path in files if path.suffix == ".py" and not path.is_absolute() and ".." not in path.parts)
    return tuple(sorted(path.as_posix() for path in kept if not TESTS & set(path.parts)))


def licence_of(package: Distribution) -> str:
    """As the package's metadata state it, in one line; "unknown" where they do not."""
    data = package.metadata
    classifiers = [one.split(" :: ")[-1] for one in data.get_all("Classifier") or () if one.startswith("License ::")]
    stated = data.get("License-Expression") or ", ".join(classifiers) or data.get("License") or ""
    return (stated.strip().splitlines() or ["unknown"])[0][:120].rstrip()


def rows_of(package: Package, file: str) -> Iterator[Row]:
    """The rows of one file, in the order of its functions; none for a file that is too large, or no Python."""
    path = package.root / file
    try:
        if path.stat().st_size > MAX_BYTES:
            return
        with tokenize.open(path) as lines:  # in the encoding that the file names
            text = lines.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    source = "stdlib" if package.name == "python" else "packages"
    for name, program in functions(text):
        row = {"id": f"{module}.{name}", "source": source, "program": program}
        yield row | {"package": package.name, "version": package.version, "licence": package.licence}


def functions(text: str) -> Iterator[tuple[str, str]]:
    """(name, program) of every function in a module that stands for itself, after the imports that it needs.

    It has a docstring, arguments and a result, 3 to 40 lines, no decorator and no class; it uses arguments, Python's
    own functions, and `PURE` modules; of an object, no attribute but those of Python's own types.
    """
    if (tree := parse(text)) is None:
        return
    imports = _imports(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and (needed := needs(node, imports)) is not None:
            program = ast.get_source_segment(text, node)
            yield node.name, "".join(f"{one}\n" for one in needed) + "\n\n" * bool(needed) + program + "\n"


def _imports(tree: ast.Module) -> dict[str, str]:
    """Of every name that a module imports from `PURE` modules, the statement that does."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for one in node.names:
                if PURE.match(one.name):
                    found[one.asname or one.name.split(".")[0]] = ast.unparse(ast.Import([one]))
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and PURE.match(node.module):
            for one in node.names:
                found[one.asname or one.name] = ast.unparse(ast.ImportFrom(node.module, [one], 0))
    return found


def needs(function: ast.FunctionDef, imports: dict[str, str]) -> list[str] | None:
    """The imports that the function needs; None when it is no seed (see `functions`)."""
    if not LINES[0] <= function.end_lineno - function.lineno + 1 <= LINES[1] or function.decorator_list:
        return None
    arguments = [one.arg for one in ast.walk(function.args) if isinstance(one, ast.arg)]
    if (
        len((ast.get_docstring(function) or "").split()) < FEWEST_WORDS
        or not arguments
        or arguments[0] in ("self", "cls")
    ):
        return None
    nodes = list(ast.walk(function))
    unfit = (
        ast.AsyncFunctionDef,
        ast.Await,
        ast.ClassDef,
        ast.Global,
        ast.Import,
        ast.ImportFrom,
        ast.Yield,
        ast.YieldFrom,
    )
    if any(isinstance(node, unfit) for node in nodes) or not any(isinstance(n, ast.Return) and n.value for n in nodes):
        return None
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)} | {
        n.name for n in nodes if isinstance(n, _NAMING)
    }
    free = {node.id for node in nodes if isinstance(node, ast.Name)} - bound
    foreign = free - imports.keys() - BUILTINS
    if foreign or any(_is_foreign(node, imports) for node in nodes):
        return None
    return sorted({imports[name] for name in free & imports.keys()})


_NAMING = (ast.FunctionDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)


def _is_foreign(node: ast.AST, imports: dict[str, str]) -> bool:
    """An attribute that no value of Python's own types has, and that is no member of an imported module."""
    if not isinstance(node, ast.Attribute) or node.attr in METHODS:
        return False
    return not (isinstance(node.value, ast.Name) and node.value.id in imports)
