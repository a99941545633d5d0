"""`metrics.json` and one self-contained `report.html` of a run: scorecard, figures, time and memory, profile."""

import base64
import html
import json
import os
import platform
from importlib import resources
from pathlib import Path
from typing import Any

import psutil
import yaml

from acelib.core import ROOT, ArtifactError, Run, full_disk_explained, load_profile, versions, write_json
from acelib.course.notebooks import title
from acelib.course.runner import NOTEBOOKS
from acelib.course.watch import clock

ADOPTED = "not testable: data were adopted"
ABOUT_FILTERING = ("filter", "filtered_rm")  # claims that need the tests which the data's authors have dropped
TEST_RECORD = ROOT / "runs" / "tests.json"  # what the last complete `make test` took; written by tests/conftest.py


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def scorecard(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of the artefact `scorecard`; none when notebook 07 has not run yet. Where the run's data were adopted,
    what could not be tested for that reason says so."""
    run = Run(run_dir, load_profile(str(run_dir / "profile.yaml")))
    rows = run.read("scorecard") if run.manifest("scorecard") else []
    if "adopted" in (run.manifest("filter_audit") or {}):
        rows = [
            row | {"verdict": ADOPTED} if row["key"] in ABOUT_FILTERING and row["here"] is None else row for row in rows
        ]
    return rows


def broken_promises(run_dir: Path) -> list[str]:
    """Claims that must hold and do not; adopted data excuse those about the filter. Raises ArtifactError when there is
    no scorecard or it promises nothing."""
    if not (run_dir / "profile.yaml").exists():
        raise ArtifactError(f"{run_dir} is not a run directory; run `make course` first or correct the path.")
    rows = scorecard(run_dir)
    if not any(row["must_hold"] for row in rows):
        raise ArtifactError(f"{run_dir} has no scorecard with claims that must hold; run `make course FROM=07` first.")
    return [
        f"{row['claim']}: {row['verdict']}"
        for row in rows
        if row["must_hold"] and row["verdict"] not in ("holds", ADOPTED)
    ]


def figure_text(here: Any) -> str:
    """`0.31 [0.28, 0.34]` of a number or of {value, low, high}."""
    if here is None or isinstance(here, dict) and here["value"] is None:
        return "-"
    if not isinstance(here, dict):
        return f"{here:.3g}" if isinstance(here, float) else str(here)
    interval = "" if here.get("low") is None else f" [{here['low']:.3f}, {here['high']:.3f}]"
    return f"{here['value']:.3f}{interval}"


def scorecard_text(rows: list[dict[str, Any]]) -> str:
    lines, width = [], max((len(row["verdict"]) for row in rows), default=0)
    for row in rows:
        must = "*" if row["must_hold"] else " "
        lines.append(f"{must} {row['verdict']:<{width}} {figure_text(row['here']):<26} {row['claim']}")
    note = "* must hold on pocket, where it can be tested; [low, high] is a 95% interval"
    return "\n".join([*lines, note]) if lines else ""


def write_metrics(run_dir: Path) -> dict[str, Any]:
    """Collect everything the run measured into `metrics.json`."""
    state = _read(run_dir / "state.json")
    notebooks = {}
    for name, record in sorted(state.items()):
        measured = {key: record[key] for key in ("seconds", "peak_mb", "memory", "finished")}
        notebooks[name] = {**measured, "metrics": _read(run_dir / "metrics" / f"{name}.json")}
    profile = yaml.safe_load((run_dir / "profile.yaml").read_text(encoding="utf-8"))
    values = {
        "profile": profile["name"],
        "seed": profile["seed"],
        "machine": machine(),
        "versions": versions(),
        "total_seconds": round(sum(one["seconds"] for one in notebooks.values()), 1),
        "peak_mb": max((one["peak_mb"] for one in notebooks.values()), default=0),
        "notebooks": notebooks,
        "scorecard": scorecard(run_dir),
        "tests": _read(TEST_RECORD) or None,
    }
    write_json(run_dir / "metrics.json", values)
    return values


def write_report(run_dir: Path) -> tuple[Path, dict[str, Any]]:
    """Write `metrics.json` and `report.html`; returns the latter's path and the former's content.

    Raises FullDiskError.
    """
    values = write_metrics(run_dir)
    profile = yaml.safe_load((run_dir / "profile.yaml").read_text(encoding="utf-8"))
    page = (
        resources.files("acelib.course")
        .joinpath("report.template.html")
        .read_text(encoding="utf-8")
        .replace("{{heading}}", _heading(values))
        .replace("{{scorecard}}", _scorecard(values["scorecard"]))
        .replace("{{figures}}", _figures(run_dir))
        .replace("{{cost}}", _cost(values))
        .replace("{{metrics}}", _metrics(values["notebooks"]))
        .replace("{{profile}}", _table(["value", "here"], _flat(profile)))
        .replace("{{versions}}", _table(["package", "version"], list(values["versions"].items())))
    )
    path = run_dir / "report.html"
    with full_disk_explained(path):
        path.write_text(page, encoding="utf-8")
    return path, values


def _escape(value: Any) -> str:
    return html.escape(str(value))


def _table(head: list[str], rows: list[Any], *, raw: bool = False) -> str:
    cells = "".join(f"<th>{_escape(one)}</th>" for one in head)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td data-label="{_escape(label)}">{one if raw else _escape(one)}</td>' for label, one in zip(head, row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<div class=wide><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"


def _heading(values: dict[str, Any]) -> str:
    rows = values["scorecard"]
    promised = [row for row in rows if row["must_hold"] and row["verdict"] != ADOPTED]
    kept = sum(row["verdict"] == "holds" for row in promised)
    facts = [
        ("profile", values["profile"]),
        ("seed", values["seed"]),
        ("time", clock(values["total_seconds"])),
        ("peak memory", f"{values['peak_mb'] / 1024:.1f} GiB"),
        ("machine", values["machine"]),
    ]
    if promised:
        facts.insert(0, ("claims that must hold on pocket", f"{kept} of {len(promised)} hold"))
    return "".join(f"<div><dt>{_escape(key)}</dt><dd>{_escape(one)}</dd></div>" for key, one in facts)


def _scorecard(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "<p>No scorecard yet: notebook 07 has not run.</p>"
    marks = {"holds": "yes", "does not hold": "no"}
    cells = []
    for row in rows:
        mark = f'<span class="mark {marks.get(row["verdict"], "open")}">{_escape(row["verdict"])}</span>'
        claim = _escape(row["claim"]) + (" <small>must hold</small>" if row["must_hold"] else "")
        if row.get("measure"):
            claim += f"<br><span class=quiet>{_escape(row['measure'])}</span>"
        here = _escape(figure_text(row["here"])).replace("-", "\u2212").replace(" [", " <span class=quiet>[")
        here += "</span>" if "<span" in here else ""
        cells.append([claim, _escape(row["paper"]), here, mark])
    return _table(["claim", "paper", "this run, 95% interval", "verdict"], cells, raw=True)


def _figures(run_dir: Path) -> str:
    parts = []
    for folder in sorted((run_dir / "figures").glob("*")):
        notebook = NOTEBOOKS / f"{folder.name}.ipynb"
        parts.append(f"<h3>{_escape(title(notebook) if notebook.exists() else folder.name)}</h3>")
        captions = {file.stem: _read(file) for file in folder.glob("*.json")}
        for name, one in sorted(captions.items(), key=lambda item: item[1]["order"]):
            data = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
            caption = _escape(one["caption"])
            parts.append(
                f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    return "".join(parts) or "<p>No figures yet.</p>"


def _cost(values: dict[str, Any]) -> str:
    notebooks = values["notebooks"]
    longest = max((one["seconds"] for one in notebooks.values()), default=0) or 1
    rows = []
    for name, one in notebooks.items():
        bar = f'<span class=bar style="width:{100 * one["seconds"] / longest:.0f}%"></span>'
        rows.append([_escape(name), f"{clock(one['seconds'])}{bar}", f"{one['peak_mb']} MiB", _escape(one["finished"])])
    peak = f"{values['peak_mb']} MiB"
    rows.append(["<b>all</b>", f"<b>{clock(values['total_seconds'])}</b>", f"<b>{peak}</b>", ""])
    if tests := values["tests"]:
        largest = f"{tests['largest_process_mb']} MiB (largest process)"
        rows.append(["<code>make test</code>", clock(tests["seconds"]), largest, _escape(tests["finished"])])
    kinds = ", ".join(sorted({one["memory"] for one in notebooks.values()})) or "PSS"
    note = f"<p class=quiet>Memory is the sampled peak of all processes of a notebook together ({kinds}).</p>"
    return _table(["", "minutes", "peak memory", "finished"], rows, raw=True) + note


def _metrics(notebooks: dict[str, Any]) -> str:
    rows = [
        (name, key, figure_text(one)) for name, record in notebooks.items() for key, one in record["metrics"].items()
    ]
    return _table(["notebook", "metric", "value"], rows)


def _flat(values: dict[str, Any], where: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{where}{key}.")
        else:
            rows.append((where + key, value if isinstance(value, str) else json.dumps(value)))
    return rows
