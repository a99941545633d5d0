"""Stages, hours, memory and dollars of a profile, computed: `python -m acelib plan`."""

import argparse
from collections.abc import Sequence

from acelib.core import load_profile
from acelib.preflight import plan
from tools.commands import PROFILE_AND_SET, explained, set_values


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m acelib plan", description=__doc__, parents=[PROFILE_AND_SET])
    parser.add_argument("--questions", metavar="N", type=int, help="for N filtered questions, and RL in proportion")
    asked = parser.parse_args(words)
    print(plan(load_profile(asked.profile, set_values(asked.overrides)), asked.questions))
