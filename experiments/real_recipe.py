"""The recipe of notebooks 01 to 07 with a real model, without their lessons: what `data/real` records.

    python -m experiments.real_recipe synthesised --profile real-gpu --run-dir runs/real --seeds runs/seeds/seeds.jsonl
        [--model FOLDER] [--humaneval humaneval.jsonl.gz --mbpp mbpp.jsonl]
    python -m experiments.real_recipe mbpp ...       the same from MBPP's training tasks with their own tests

Every step is an artefact of the run (`acelib.core.Run`), made by the functions that the notebooks teach: a stop loses
the step in flight, which goes on from its own checkpoints. `--steps` names some of them, for processes side by side.
What is measured is measured on HumanEval and on MBPP's test tasks, in the words of `prompts.solve`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml

from acelib.core import ROOT, ArtifactError, DataError, Profile, Run, Threads, assume, load_profile
from acelib.data import read_benchmark
from acelib.engine import open_sampler, sample_and_judge
from acelib.evaluation import EVALPLUS, Prompt, ask
from acelib.extraction import extract_program
from acelib.filtering import filter_problems, passed_tests, proxy_programs
from acelib.judge import Judge
from acelib.models import SamplingParams, free_gpu, solve_messages
from acelib.pairs import build_pairs
from acelib.preflight import preflight_gpu, require
from acelib.reward_model import is_held_out, load_reward_model, score
from acelib.rewards import model_reward, rule_reward
from acelib.sampling import judge_programs, pass_rates, restrict_tests, submission
from acelib.schema import Pair, Problem, Row
from acelib.synthesis import imagine, load_seeds, problems_from_replies
from acelib.training import jobs, make_reinforce_trainer
from experiments.real_laboratory import benchmark_programs, questions
from tools.commands import explained

MBPP_TRAIN = range(601, 975)  # MBPP's own training split


@dataclass
class Recipe:
    """A run and the files beside it. Each method below makes one artefact, unless it is there."""

    run: Run
    args: argparse.Namespace

    @property
    def profile(self) -> Profile:
        return self.run.profile

    def _judge(self) -> Judge:
        return Judge.from_settings(self.profile.judge)

    def _shown(self, label: str) -> Callable[[float, int], None]:
        return partial(self.run.progress, label=label)

    def replies(self, scratch: Path) -> list[Row]:
        settings, show = self.profile.synthesis, self._shown("imagining tests")
        return imagine(
            *open_sampler(self.profile, self.profile.models.teacher, scratch),
            load_seeds(self.args.seeds)[: settings.questions],
            SamplingParams.of(settings, seed=self.profile.seed, repeats=settings.max_repeats),
            prompt=self.profile.prompts.teacher,
            log=scratch / "replies.jsonl",
            form=settings.form,
            tests=self.profile.prompts.tests,
            progress=show,
        )

    def imagined(self, scratch: Path) -> list[Problem]:
        problems, counts = problems_from_replies(self.run.read("replies"), load_seeds(self.args.seeds))
        print(*(f"{key:46}{count:7,}" for key, count in sorted(counts.items())), sep="\n")
        return problems

    def proxy_verdicts(self, scratch: Path) -> list[Row]:
        problems = self.run.read("imagined", Problem)
        programs = proxy_programs(
            *open_sampler(self.profile, self.profile.models.proxy, scratch),
            problems,
            SamplingParams.of(self.profile.filtering, seed=self.profile.seed),
            prompt=self.profile.prompts.solve,
            log=scratch / "proxy.jsonl",
        )
        with self._judge() as judge:
            passed = passed_tests(judge_programs(judge, problems, programs))
        return [{"id": one.problem_id, "program": one.text, "passed": row} for one, row in zip(programs, passed)]

    def filtered(self, scratch: Path) -> list[Problem]:
        passed = [row["passed"] for row in self.run.read("proxy_verdicts")]
        return filter_problems(self.run.read("imagined", Problem), passed, self.profile.filtering.min_tests)

    def samples_unfiltered(self, scratch: Path) -> list[Row]:
        kept = {one.id for one in self.run.read("filtered", Problem)}
        problems = [one for one in self.run.read("imagined", Problem) if one.id in kept]
        params = SamplingParams.of(self.profile.sampling, seed=self.profile.seed + 1)
        return sample_and_judge(self.profile, problems, params, scratch, self.run.progress)

    def samples(self, scratch: Path) -> list[Row]:
        return restrict_tests(self.run.read("samples_unfiltered"), self.run.read("filtered", Problem))

    def pairs(self, scratch: Path) -> list[Pair]:
        rule = vars(self.profile.pairs)
        return build_pairs(self.run.read("samples"), self._instruction, **rule, seed=self.profile.seed)

    def _instruction(self, question: str) -> str:
        return solve_messages(self.profile.prompts.solve, question)[-1]["content"]

    def hard_questions(self, scratch: Path) -> list[Problem]:
        """Those whose samples are neither all right nor all wrong: on a weak policy few of the paper's hard quarter
        are."""
        rows = self.run.read("samples")
        mixed = [row for row in rows if len({rate == 1.0 for rate in pass_rates(row)}) == 2]
        print(f"{len(mixed)} of {len(rows)} questions have right and wrong programs")
        return [Problem.from_row(row) for row in mixed]

    def reward_model(self, path: Path, scratch: Path) -> None:
        jobs.reward_model(self.run, path, scratch, self._shown("reward model"), pairs="pairs")

    def _scored(self, rows: Sequence[Row]) -> list[list[float]]:
        """The reward model's score of every program of AceCode rows, as one list per row."""
        models = self.profile.models
        scorer = load_reward_model(self.run.path("reward_model"), models.dtype, models.device)
        asked = [self._instruction(row["question"]) for row in rows for _ in row["inferences"]]
        texts = [item["completion"] for row in rows for item in row["inferences"]]
        found = iter(score(*scorer, asked, texts, self.profile.reward_model.score_batch))
        return [list(islice(found, len(row["inferences"]))) for row in rows]

    def reward_audit(self, scratch: Path) -> list[Row]:
        """Scores of held-out questions' programs, beside the share of surviving tests that they pass."""
        rows = [one for one in self.run.read("samples") if is_held_out(one["id"], self.profile.reward_model.held_out)]
        scores = self._scored(rows)
        return [{"id": row["id"], "pass_rate": pass_rates(row), "score": one} for row, one in zip(rows, scores)]

    def scores(self, scratch: Path) -> list[Row]:
        """Scores of the untrained policy's programs for the benchmarks."""
        rows = benchmark_programs(self.profile, self._benchmarks(), self.args.laboratory)[1]
        scores = self._scored(rows)
        return [
            {"id": row["id"], "correct": [rate == 1.0 for rate in pass_rates(row)], "score": one}
            for row, one in zip(rows, scores)
        ]

    def baselines(self, scratch: Path) -> list[Row]:
        """The untrained policy's greedy programs for the benchmarks, asked in the profile's words and in EvalPlus's."""
        problems, rows = self._benchmarks(), []
        model = open_sampler(self.profile, self.profile.models.policy, scratch)
        params = SamplingParams.of(self.profile.sampling, seed=self.profile.seed).greedy()
        with self._judge() as judge:
            for name, prompt in {"profile": Prompt(self.profile.prompts.solve), "EvalPlus": EVALPLUS}.items():
                replies = ask(*model, problems, prompt, params, self._shown(f"{name}'s prompt"))
                programs = [extract_program(text, one.entry_point) for one, (text,) in zip(problems, replies)]
                reports = judge.run([submission(one, program) for one, program in zip(problems, programs)])
                rows += [
                    {"id": one.id, "prompt": name, "greedy": bool(report.passed), "program": program}
                    for one, report, program in zip(problems, reports, programs, strict=True)
                ]
        return rows

    def policy_rule(self, path: Path, scratch: Path) -> None:
        problems = self.run.read("hard_questions", Problem)
        with self._judge() as judge:
            self._train(problems, rule_reward(judge, problems), path, scratch)

    def policy_rm(self, path: Path, scratch: Path) -> None:
        problems, models = self.run.read("hard_questions", Problem), self.profile.models
        scorer = load_reward_model(self.run.path("reward_model"), models.dtype, models.device)
        learned = model_reward(*scorer, self.profile.reward_model.score_batch)
        with self._judge() as judge:
            self._train(problems, learned, path, scratch, watch=[rule_reward(judge, problems)])

    def _train(self, problems: Sequence[Problem], reward: Any, path: Path, scratch: Path, **more: Any) -> None:
        show = self._shown(path.name.removeprefix(".tmp-"))
        for row in make_reinforce_trainer(
            self.profile, problems, reward, scratch, progress=show, **more
        ).train_and_save(path):
            print({name: round(x, 4) for name, x in row.items() if isinstance(x, float)}, flush=True)

    def _benchmarks(self) -> list[Problem]:
        return questions(self.args.humaneval, self.args.mbpp, self.args.questions)[0]

    def _evaluated(self, policy: str | None, scratch: Path) -> list[Row]:
        """The programs of a trained policy (None: of the one that training starts from) for the benchmarks."""
        problems, models = self._benchmarks(), self.profile.models
        if policy:
            models = assume(models, policy=str(self.run.path(policy)))
        trained = assume(self.profile, models=models)
        params = SamplingParams.of(
            self.profile.sampling, n=self.profile.evaluation.samples, temperature=1.0, seed=self.profile.seed + 2
        )
        greedy = sample_and_judge(trained, problems, params.greedy(), scratch / "greedy", self.run.progress)
        sampled = sample_and_judge(trained, problems, params, scratch / "sampled", self.run.progress)
        return [
            {
                "id": one.id,
                "greedy": pass_rates(first)[0] == 1.0,
                "correct": [rate == 1.0 for rate in pass_rates(others)],
                "programs": [item["program"] for item in (first["inferences"][0], *others["inferences"])],
            }
            for one, first, others in zip(problems, greedy, sampled, strict=True)
        ]

    def evaluation_start(self, scratch: Path) -> list[Row]:
        return self._evaluated(None, scratch)

    def evaluation_rule(self, scratch: Path) -> list[Row]:
        return self._evaluated("policy_rule", scratch)

    def evaluation_rm(self, scratch: Path) -> list[Row]:
        return self._evaluated("policy_rm", scratch)


# In order: what each is made from, and the sections of the profile whose values decide what it holds.
STEPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "replies": ((), ("synthesis", "prompts")),
    "imagined": (("replies",), ()),
    "proxy_verdicts": (("imagined",), ("filtering", "prompts", "judge")),
    "filtered": (("imagined", "proxy_verdicts"), ("filtering",)),
    "samples_unfiltered": (("imagined", "filtered"), ("sampling", "prompts", "judge")),
    "samples": (("samples_unfiltered", "filtered"), ()),
    "pairs": (("samples",), ("pairs",)),
    "hard_questions": (("samples",), ()),
    "reward_model": (("pairs",), ("reward_model",)),
    "reward_audit": (("samples", "reward_model"), ()),
    "scores": (("reward_model",), ("evaluation", "sampling")),
    "baselines": ((), ("evaluation", "sampling", "prompts", "judge")),
    "evaluation_start": ((), ("evaluation", "sampling", "prompts", "judge")),
    "policy_rule": (("hard_questions",), ("reinforce",)),
    "evaluation_rule": (("policy_rule",), ("evaluation", "sampling", "prompts", "judge")),
    "policy_rm": (("hard_questions", "reward_model"), ("reinforce",)),
    "evaluation_rm": (("policy_rm",), ("evaluation", "sampling", "prompts", "judge")),
}
FOLDERS = ("reward_model", "policy_rule", "policy_rm")


def make(recipe: Recipe, step: str, wait: float) -> None:
    """One step; first wait up to `wait` seconds for what another process makes."""
    run, until = recipe.run, time.monotonic() + wait
    inputs, sections = STEPS[step]
    while True:
        try:
            for name in inputs:
                run.path(name)
            break
        except ArtifactError:
            if time.monotonic() > until:
                raise
            time.sleep(1)
    engine = run.profile.engine
    params: dict[str, Any] = {key: getattr(engine, key) for key in ("lora_rank", "quantise", "generation")}
    params |= {"model": recipe.args.model, "benchmarks": recipe.args.questions if "evaluation" in sections else None}
    params |= run.profile.deciding(*sections)
    for section in {"synthesis", "filtering", "sampling"} & set(sections):  # their samplers answer alike in any batch
        del params[section]["batch_size"]
    if step in FOLDERS:
        run.folder(step, getattr(recipe, step), inputs, params)
    else:
        of = Problem if step in ("filtered", "hard_questions") else None
        run.table(step, getattr(recipe, step), inputs, params, of=of)
    free_gpu()
    print(f"{time.strftime('%X')} {step} is there", flush=True)


def adopt_mbpp(run: Run, mbpp: str, count: int) -> None:
    """The first of MBPP's training tasks with their own tests, in the place of imagined and filtered ones."""
    chosen = [one for one in read_benchmark(mbpp, "train") if int(one.id.removeprefix("MBPP/")) in MBPP_TRAIN]
    if not chosen:
        raise DataError(
            f"{mbpp} holds none of MBPP's tasks 601 to 974; give its hub name, or the file of all its tasks."
        )
    rows = [one.to_row() for one in chosen[:count]]
    run.adopt({"imagined": rows, "filtered": rows}, {"source": "MBPP", "command": "python -m experiments.real_recipe"})


@explained
def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions_from", choices=("synthesised", "mbpp"))
    parser.add_argument("--profile", default="real")
    parser.add_argument(
        "--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="values of the profile"
    )
    parser.add_argument("--run-dir", type=Path, default=ROOT / "runs" / "real")
    parser.add_argument("--model", help="folder or hub name of all models; default: the profile's")
    parser.add_argument("--seeds", default="runs/seeds/seeds.jsonl")
    parser.add_argument("--humaneval", default="openai/openai_humaneval")
    parser.add_argument("--mbpp", default="google-research-datasets/mbpp")
    parser.add_argument("--questions", type=int, nargs=2, default=(164, 200), help="of HumanEval, of MBPP's test split")
    parser.add_argument("--tasks", type=int, default=len(MBPP_TRAIN), help="of MBPP's training split, its first ones")
    parser.add_argument("--laboratory", type=Path, help="scratch folder of experiments/real_laboratory.py")
    parser.add_argument("--steps", nargs="*", choices=STEPS, help="default: all")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait for steps of another process")
    args = parser.parse_args(words)
    args.laboratory = args.laboratory or args.run_dir / "laboratory"
    profile = load_profile(
        args.profile, {key: yaml.safe_load(value) for key, _, value in (one.partition("=") for one in args.set)}
    )
    if args.model:
        names = dict.fromkeys(("teacher", "proxy", "policy"), args.model)
        models, base = assume(profile.models, **names), assume(profile.reward_model, base=args.model)
        profile = assume(profile, models=models, reward_model=base)
    require(preflight_gpu(profile))  # before anything is fetched
    recipe = Recipe(Run(args.run_dir, profile), args)
    recipe.run.threads = Threads(max(1, min(profile.threads, torch.get_num_threads())))
    torch.set_num_threads(recipe.run.threads.most)
    steps = list(args.steps or STEPS)
    if args.questions_from == "mbpp":
        adopt_mbpp(recipe.run, args.mbpp, args.tasks)
        steps = [step for step in steps if step not in ("replies", "imagined", "proxy_verdicts", "filtered")]
    for step in steps:
        make(recipe, step, args.wait)


if __name__ == "__main__":
    sys.exit(main())
