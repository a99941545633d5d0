"""The judge beside other executors: same programs, same tests, same machine, two workers each, passes interleaved.

    python bench/judge.py                  the table
    python bench/judge.py --busy 2         the same on a busy machine: two processes that only loop run beside it
    python bench/judge.py --scale 20000    cost and memory of the judge as the number of submissions grows
    python bench/judge.py --real FOLDER    with what a real model wrote: rows of programs and tests (default: data/real)
    python bench/judge.py --beside FOLDER  with the judge of another checkout, such as that of an earlier commit

The paper's executor is described in its code and written anew here: a list of forbidden words, a child process for each
program that executes it and its tests in one namespace, a shared number that says which tests have passed, and one
wall-clock limit for all of them. It is measured on programs written here and on references only; what a model wrote
runs in the judge. EvalPlus is installed from the package index into its own environment (.cache/bench-evalplus).

The honest programs are HumanEval's references when `../shared/data` is there, else functions made here; those with
fewer than a dozen tests of the form f(literals) == literal have theirs repeated, as a data set with many imagined tests
would. CPU time counts all processes of an executor. The fork floor is what an empty child of a lean Python costs; the
program floor is what a child costs that compiles and runs a reference program with its tests and has no protection at
all: an executor that gives each program a process of its own can hardly be cheaper. Attacks run on the judge only: on
an executor without a wall they would do their harm.
"""

import argparse
import ast
import gzip
import importlib.util
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HUMANEVAL = ROOT.parent / "shared" / "data" / "humaneval.jsonl.gz"
ENVIRONMENT = ROOT / ".cache" / "bench-evalplus"
REAL = ROOT / "data" / "real"
WORKERS, PROGRAMS, BAD_SHARE, DOZEN = 2, 200, 0.05, 12
REFUSED = ("threading", "multiprocess", "import os", "from os", "shutil", "import torch", "from torch", "sklearn")
PAPER_SECONDS = 0.2
BAD = [
    "def {name}(*a):\n    while True: pass",
    "import time\ndef {name}(*a): time.sleep(100)",
    "import os\ndef {name}(*a): os._exit(1)",
    "def {name}(*a): return bytearray(10**11)",
    "def {name}(*a): return {name}(*a)",
]


def tasks() -> list[dict]:
    """Functions with tests `assert f(<literals>) == <literal>`: name, program, inputs, expected, tests."""
    made = _humaneval() if HUMANEVAL.exists() else _made_here()
    return [made[i % len(made)] for i in range(PROGRAMS)]


def _humaneval() -> list[dict]:
    found = []
    with gzip.open(HUMANEVAL, "rt") as f:
        for row in map(json.loads, f):
            name, inputs, expected = row["entry_point"], [], []
            for node in ast.walk(ast.parse(row["test"])):
                try:
                    call, value = node.test.left, ast.literal_eval(node.test.comparators[0])
                    inputs.append([ast.literal_eval(a) for a in call.args])
                    expected.append(value)
                except (AttributeError, ValueError):
                    continue
            if len(inputs) >= 3 and name != "candidate":
                found.append(_task(name, row["prompt"] + row["canonical_solution"], inputs, expected))
    return found


def _made_here() -> list[dict]:
    draw = random.Random(0)
    bodies = {
        "return sorted(x for x in xs if x > {k})": lambda xs, k: sorted(x for x in xs if x > k),
        "return [x * {k} for x in xs][::-1]": lambda xs, k: [x * k for x in xs][::-1],
        "return sum(x for x in xs if x % {k} == 0)": lambda xs, k: sum(x for x in xs if x % k == 0),
    }
    found = []
    for k in range(2, 60):
        for body, function in bodies.items():
            inputs = [[[draw.randrange(100) for _ in range(8)]] for _ in range(12)]
            program = f"def solve(xs):\n    {body.format(k=k)}\n"
            found.append(_task("solve", program, inputs, [function(*args, k) for args in inputs]))
    return found


def _task(name, program, inputs, expected) -> dict:
    if len(inputs) < DOZEN:
        repeats = -(-DOZEN // len(inputs))
        inputs, expected = (inputs * repeats)[:DOZEN], (expected * repeats)[:DOZEN]
    tests = [f"assert {name}({', '.join(map(repr, args))}) == {value!r}" for args, value in zip(inputs, expected)]
    return {"name": name, "program": program, "inputs": inputs, "expected": expected, "tests": tests}


def workload(bad: bool, copy: int) -> list[dict]:
    """The tasks, each program made unlike those of other passes; with `bad`, every twentieth replaced by a bad one."""
    made = []
    for i, task in enumerate(tasks()):
        program = f"{task['program']}\n# {copy}.{i}\n"
        if bad and i % round(1 / BAD_SHARE) == 0:
            program = BAD[(i * len(BAD) // PROGRAMS) % len(BAD)].format(name=task["name"])
        made.append({**task, "program": program})
    return made


@contextmanager
def judge_executor():
    from acelib.judge import Judge, Submission

    def submission(task):
        known = Submission.__dataclass_fields__.keys() & {"prelude", "entry_point"}  # an earlier commit's has fewer
        return Submission(task["program"], task["tests"], **{name: task[name] for name in known & task.keys()})

    with Judge(workers=WORKERS) as judge:
        yield lambda made: [r.passed for r in judge.run([submission(task) for task in made])]


def _count(program: str, tests: list[str], passed) -> None:
    names: dict = {}
    try:
        exec(program, names)
    except Exception:
        return
    for place, test in enumerate(tests):
        try:
            exec(test, names)
            passed.value += 2**place
        except Exception:
            continue


def _counted(task: dict) -> bool:
    """The paper's executor on one program."""
    if any(word in task["program"] for word in REFUSED):
        return False
    passed = multiprocessing.Value("q", 0)
    child = multiprocessing.Process(target=_count, args=(task["program"], task["tests"], passed))
    child.start()
    child.join(PAPER_SECONDS)
    if child.is_alive():
        child.kill()
        child.join()
    return passed.value == 2 ** len(task["tests"]) - 1


def _check(task: dict) -> bool:
    from evalplus.eval import untrusted_check

    inputs, expected, times = task["inputs"], task["expected"], [0.01] * len(task["inputs"])
    return untrusted_check("humaneval", task["program"], inputs, task["name"], expected, 0, times)[0] == "pass"


@contextmanager
def pool_executor(check):
    with ProcessPoolExecutor(max_workers=WORKERS) as pool:
        yield lambda made: list(pool.map(check, made))


def measure(executor: str, path: str) -> None:
    """In a process of its own: warm up, run a workload, print what it cost."""
    made = ast.literal_eval(Path(path).read_text())
    checks = {"EvalPlus": _check, "the paper's": _counted}
    with pool_executor(checks[executor]) if executor in checks else judge_executor() as run:
        run(made[1:9])
        cpu, start = cpu_seconds(os.getpid()), time.perf_counter()
        passed = run(made)
        wall = time.perf_counter() - start
        print(json.dumps({"wall": wall, "cpu": cpu_seconds(os.getpid()) - cpu, "passed": passed}))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, of its living descendants, and of those that have ended and been waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(cpu_seconds(int(child)) for child in children)


def fork_floor(count: int = 300) -> float:
    """Milliseconds of CPU for one empty child of a lean Python."""
    script = (
        "import os, resource\n"
        f"for _ in range({count}):\n"
        "    pid = os.fork()\n"
        "    if pid == 0: os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
        "print(sum(sum(resource.getrusage(w)[:2]) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))\n"
    )
    empty = script.replace(f"range({count})", "range(0)")
    full, none = (
        float(subprocess.run([sys.executable, "-S", "-c", s], capture_output=True, text=True, check=True).stdout)
        for s in (script, empty)
    )
    return (full - none) / count * 1000


def program_floor() -> float:
    """Milliseconds of CPU for a child of a lean Python that runs one of our reference programs and its asserts."""
    script = (
        "import copy, collections, functools, hashlib, heapq, itertools, json, math, os, random, re, resource, string\n"
        "import sys, typing\n"
        "sources = json.load(sys.stdin)\n"
        "def spent():\n"
        "    return sum(sum(resource.getrusage(w)[:2]) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))\n"
        "start = spent()\n"
        "for source in sources:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        exec(compile(source, 'program', 'exec'), {})\n"
        "        os._exit(0)\n"
        "    if os.waitpid(pid, 0)[1]: sys.exit('a reference program failed')\n"
        "print(spent() - start)\n"
    )
    sources = json.dumps(["\n".join([task["program"], *task["tests"]]) for task in tasks()])
    lean = [sys.executable, "-S", "-c", script]
    out = subprocess.run(lean, input=sources, capture_output=True, text=True, check=True)
    return float(out.stdout) / PROGRAMS * 1000


def attacks() -> str:
    """What the attack corpus did to the judge, in words."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_judge_attacks.py"]
    if importlib.util.find_spec("pytest") is None:
        return "attacks: not run, pytest is missing; pip install -r requirements-test.txt"
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        return f"attacks: FAILED after {seconds:.0f} s, see `{' '.join(command[1:])}`"
    return f"attacks: no false pass and no harm at any level this machine has ({seconds:.0f} s)"


def install_evalplus() -> Path | None:
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "done").exists():
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
            subprocess.run([*pip, "numpy", "psutil"], check=True)
            subprocess.run([*pip, "--no-deps", "evalplus==0.3.1"], check=True)  # its checker needs no more than these
        except subprocess.CalledProcessError as error:
            print(f"EvalPlus could not be installed ({error}); the table shows the judge alone.", file=sys.stderr)
            return None
        (ENVIRONMENT / "done").touch()
    return python


@contextmanager
def hogs(count: int):
    """Processes that do nothing but compute, while the block runs."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def real_workload(folder: Path, copy: int) -> list[dict]:
    """At most 400 programs of a real model, spread over the rows of a folder's files; many are wrong, some loop."""
    from acelib.core import read_rows
    from acelib.judge import LLM_PRELUDE

    found = []
    for row in (row for path in sorted(folder.rglob("*.parquet")) for row in read_rows(path)):
        programs = row.get("programs") or [one.get("program") for one in row.get("inferences", [])]
        if tests := row.get("tests") or row.get("test_cases"):
            about = {"tests": tests, "entry_point": row["entry_point"], "prelude": LLM_PRELUDE}
            found += [{**about, "program": f"{program}\n# {copy}\n"} for program in programs if program]
    return found[:: -(-len(found) // 400)] if found else []


def compare(passes: int, busy: int, real: Path, beside: Path | None) -> None:
    executors = {"judge": (Path(sys.executable), ROOT), "the paper's": (Path(sys.executable), ROOT)}
    if beside is not None:
        executors["other judge"] = Path(sys.executable), beside.resolve()
    if (python := install_evalplus()) is not None:
        executors["EvalPlus"] = python, ROOT
    with hogs(busy):
        results = measure_all(executors, passes, real)
    asserts = statistics.fmean(len(task["tests"]) for task in tasks())
    print(f"\n{PROGRAMS} programs x {asserts:.1f} asserts, {WORKERS} workers, ", end="")
    print(f"medians of {passes} interleaved passes" + f", beside {busy} processes that only loop" * bool(busy))
    show(results)
    if not any(kind == "real" for _, kind in results):
        print(f"real programs: none in {real}; `--real FOLDER` names a folder of rows with programs and tests")


def measure_all(executors: dict, passes: int, real: Path) -> dict:
    """{(executor, kind of programs): [row of each pass]}"""
    results: dict = {}
    scratch = ROOT / ".cache" / "bench-workload.txt"
    scratch.parent.mkdir(exist_ok=True)
    for number in range(passes):
        works = {
            "honest": workload(False, number),
            "5% bad": workload(True, number),
            "real": real_workload(real, number),
        }
        for kind, made in works.items():
            scratch.write_text(repr(made))
            for name, (python, root) in executors.items() if made else ():
                if kind == "real" and "judge" not in name:
                    continue  # what a model wrote needs a wall
                command = [str(python), __file__, "--measure", name, str(scratch)]
                environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
                out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
                row = json.loads(out.splitlines()[-1])
                row |= {"speed": len(made) / row["wall"], "cost": row["cpu"] / len(made) * 1000}
                row["good"] = sum(row["passed"]) / len(made)
                results.setdefault((name, kind), []).append(row)
                print(f"pass {number + 1} {name:11} {kind}: {{good:.1%}} of {len(made)} passed, ".format(**row), end="")
                print("{speed:.1f} programs/s, {cost:.2f} ms CPU".format(**row), flush=True)
    return results


def show(results: dict) -> None:
    middle = {
        key: {what: statistics.median(row[what] for row in rows) for what in ("speed", "cost", "good")}
        for key, rows in results.items()
    }
    print("\n| executor | programs | programs/s | CPU ms/program | passed |")
    print("|---|---|---|---|---|")
    for (name, kind), row in sorted(middle.items(), key=lambda item: item[0][1]):
        print(f"| {name} | {kind} | {row['speed']:.1f} | {row['cost']:.2f} | {row['good']:.1%} |")
    print()
    for name in dict.fromkeys(name for name, _ in middle if name != "judge"):
        mine, theirs = (middle[one, "honest"] for one in ("judge", name))
        bad = middle["judge", "5% bad"]["speed"] / middle[name, "5% bad"]["speed"]
        print(f"judge / {name}: {mine['speed'] / theirs['speed']:.1f}x programs/s, ", end="")
        print(f"{mine['cost'] / theirs['cost']:.0%} of its CPU, {bad:.1f}x with 5% bad programs")
    print(f"fork floor: {fork_floor():.2f} ms CPU; program floor: {program_floor():.2f} ms CPU")
    print(attacks())


def scale(largest: int) -> None:
    """Cost per submission and peak memory as the number grows, each in a process of its own."""
    for count in (largest // 100, largest // 10, largest):
        script = (
            "import resource, time\n"
            "from acelib.judge import Judge, Submission\n"
            "make = lambda i: Submission(f'def f(x): return x + {i}', [f'assert f(1) == {i + 1}'])\n"
            f"made = [make(i) for i in range({count})]\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "start = time.perf_counter()\n"
            f"with Judge(workers={WORKERS}) as judge:\n"
            "    reports = judge.run(made)\n"
            "wall = time.perf_counter() - start\n"
            "cpu = sum(sum(resource.getrusage(w)[:2]) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))\n"
            "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
            "assert all(r.passed for r in reports)\n"
            f"print(f'{count:8,} submissions: {{wall / {count} * 1000:.2f}} ms wall, "
            f"{{cpu / {count} * 1000:.2f}} ms CPU each, {{grown / 1024:.1f}} MB grown while running')\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="run N processes that only loop beside it")
    parser.add_argument("--real", type=Path, default=REAL, help="folder of rows with a real model's programs and tests")
    parser.add_argument("--beside", type=Path, help="another checkout of this project, whose judge is measured, too")
    parser.add_argument("--scale", type=int, help="largest number of submissions")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
    elif arguments.scale:
        scale(arguments.scale)
    else:
        compare(arguments.passes, arguments.busy, arguments.real, arguments.beside)
