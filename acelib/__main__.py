"""Command line: `python -m acelib COMMAND --help`."""

import argparse
import sys
from importlib import import_module

from acelib import core, course  # doors: a room is loaded when something is taken from it

COMMANDS = {  # each is the `main(words)` of a module beside the package
    "course": ("runner.course", "run the notebooks and write the report"),
    "scorecard": ("runner.report", "print the scorecard of a run"),
    "plan": ("tools.plan", "stages, hours, memory and dollars of a profile, computed"),
    "watch": ("tools.watch", "what the training of a run shows so far, and which thresholds it crosses"),
    "doctor": ("tools.doctor", "versions, machine, isolation and checks, as text to paste into an issue"),
    "adopt": ("tools.adopt", "start from published questions and programs, at notebook 03"),
    "seeds": ("tools.seeds", "make seed programs for the teacher"),
    "export": ("tools.export", "write what a run made as a data set"),
    "grid": ("experiments.grid", "train the comparison of notebook 08"),
    "harness": ("tools.harness", "measure a model by a benchmark's own harness"),
    "rank": ("tools.rank", "rank recorded programs of your own"),
}


def main(words: list[str] | None = None) -> int:
    """Runs a command; `words` are its name and its arguments. Returns an exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m acelib",
        description="\n".join(f"{name:10} {what}" for name, (_, what) in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of these; each has a --help")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    asked = parser.parse_args(words)
    course.contain()
    sys.path.append(str(core.ROOT))
    return import_module(COMMANDS[asked.command][0]).main(asked.words) or 0


if __name__ == "__main__":
    with core.stoppable():
        sys.exit(main())
