"""Models that others trained, in the place of those that notebooks 04 and 06 make: a run without training."""

from functools import partial
from pathlib import Path

from acelib.core import Run

TABLES = ("imagined", "filtered", "filter_audit", "rl_log")  # what such a run has nothing of


def adopt_models(run: Run, command: str) -> None:
    """Puts the models of `run.profile.published` into the run, as links to their files, and empty tables for what is
    not known of their training. Raises ModelError when there is no such model; ArtifactError as `Run.adopt` does."""
    run.adopt(dict.fromkeys(TABLES, ()), {"source": run.profile.best_of_n.reward_model, "command": command})
    for name, source in run.profile.published.items():
        if not Path(folder := run.profile.resolve(source)).is_dir():
            print(
                f"{source}: fetched from the hub unless it is here; tens of gigabytes take minutes to an hour",
                flush=True,
            )
        run.folder(name, partial(_link, folder))


def _link(source: str, path: Path, scratch: Path) -> None:
    from acelib.models import local_folder

    for file in local_folder(source).iterdir():
        if file.is_file():
            (path / file.name).symlink_to(file.resolve())
