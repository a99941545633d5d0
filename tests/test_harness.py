"""The benchmarks' own harnesses: what they read and write; where one is installed, that it and our judge agree.

The programs are ours, so executing them outside the judge is no risk.
"""

import json
import subprocess
from pathlib import Path

import pytest
from tiny_models import save_tiny_policy
from transformers import AutoTokenizer

from acelib.core import EngineError
from acelib.core.profiles import load_profile
from acelib.core.tables import read_rows
from acelib.data.benchmarks import read_benchmark
from acelib.evaluation import EVALPLUS
from acelib.extraction import extract_program
from acelib.judge import Judge, Limits
from acelib.models import SamplingParams, load_policy, load_tokenizer
from acelib.sampling import judge_programs
from acelib.schema import Program
from tools.harness import (
    HARNESSES,
    MORE_STOPS,
    STOPS,
    beginning,
    collect,
    command,
    complete,
    execute,
    installed,
    main,
    own_prompt,
    pass_at_1,
    questions,
    summary,
    until,
    write_samples,
)

FIXTURES = Path(__file__).parent / "fixtures"
END = "<|endoftext|>"
WIDEST = "def widest_gap(heights):\n    return max((abs(a - b) for a, b in zip(heights, heights[1:])), default=0)\n"
MEAN = "def ladder_mean(steps):\n    return sum(i * s for i, s in enumerate(steps, 1)) / {}\n"
HALVES = "def unscramble(text):\n    middle = len(text) // 2\n    return text[middle:] + text[:middle]\n"
# (program, right by the base tests, right by all)
HUMANEVAL = {
    "HumanEval/9000": [
        (WIDEST, True, True),
        ("def widest_gap(heights):\n    return 3 if len(heights) > 1 else 0\n", True, False),
        ("def widest_gap(heights):\n    return max(heights) - min(heights)\n", True, False),
        ("def widest_gap(heights):\n    while True:\n        pass\n", False, False),
        ("def widest_gap(heights)\n    return 0\n", False, False),
        (None, False, False),
        ("def another(heights):\n    return 0\n", False, False),
        (WIDEST.replace("heights):", "heights: list) -> float:").replace("default=0)", "default=0) * 1.0"), True, True),
    ],
    "HumanEval/9002": [
        (MEAN.format("max(1, sum(range(len(steps) + 1)))"), True, True),
        (MEAN.format("max(1, sum(range(len(steps) + 1))) / (1 + 1e-9)"), True, True),
        (MEAN.format("max(1, sum(range(len(steps) + 1))) * 1.001"), False, False),
        (MEAN.format("sum(range(len(steps) + 1))"), False, False),
    ],
    "HumanEval/9001": [
        (HALVES, True, True),
        ("def unscramble(text):\n    return text[2:] + text[:2]\n", True, False),
        ("import sys\ndef unscramble(text):\n    sys.exit(0)\n", False, False),
    ],
}
MBPP = {
    "Mbpp/9005": [
        ("def unroll(xs):\n    return [x for x in xs for _ in range(x)]\n", True, True),
        ("def unroll(xs):\n    return tuple(x for x in xs for _ in range(x))\n", False, False),
        ("def unroll(xs):\n    return [1, 2, 2]\n", True, False),
    ],
    "Mbpp/9006": [
        ("def halves(xs):\n    return [x / 2 for x in xs]\n", True, True),
        ("def halves(xs):\n    return [x / 2 + 1e-8 for x in xs]\n", True, True),
        ("def halves(xs):\n    return [x // 2 for x in xs]\n", False, False),
        ("def halves(xs):\n    return [min(x / 2, 1e9) for x in xs]\n", True, False),
    ],
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "dataset, hub, programs", [("humaneval", "humanevalplus", HUMANEVAL), ("mbpp", "mbppplus", MBPP)]
)
def test_evalplus_and_our_judge_agree_on_every_program(tmp_path, dataset, hub, programs):
    harness = HARNESSES["evalplus"]
    if installed(harness) is None:
        pytest.skip(f"EvalPlus is not installed: {harness.install}")
    samples = write_samples(harness, tmp_path, {name: [one[0] for one in mine] for name, mine in programs.items()})
    rows = execute(harness, dataset, samples, FIXTURES / f"evalplus_{dataset}.jsonl")
    by_evalplus = {row["id"]: list(zip(row["base"], row["plus"])) for row in rows}
    assert by_evalplus == {name: [one[1:] for one in mine] for name, mine in programs.items()}
    problems = read_benchmark(FIXTURES / f"{hub}.jsonl")
    handed = [Program(name.replace("Mbpp/", "MBPP/"), one[0], "m") for name, mine in programs.items() for one in mine]
    with Judge(workers=1, limits=Limits(cpu_seconds=1.0, wall_seconds=30)) as judge:
        reports = judge_programs(judge, problems, handed)
    assert [report.passed for report in reports] == [one[2] for mine in programs.values() for one in mine]


@pytest.mark.timeout(300)
def test_bigcodebench_reads_our_samples(tmp_path):
    harness, path = HARNESSES["bigcodebench"], FIXTURES / "bigcodebench.jsonl"
    if installed(harness) is None:
        pytest.skip(f"BigCodeBench is not installed: {harness.install}")
    (row,) = read_rows(path)
    wrong = "def task_func(rain, bins=10):\n    return []\n"
    programs = [row["complete_prompt"] + row["canonical_solution"], wrong, None]
    samples = write_samples(harness, tmp_path, {row["task_id"]: programs})
    assert execute(harness, "complete", samples, path) == [
        {"id": "BigCodeBench/9000", "base": [True, False, False], "plus": None}
    ]


def test_formats_of_the_samples(tmp_path):
    programs = {"a": ["x = 1\n", None], "b": ["y = 2\n", "z = 3\n"]}
    lines = read_rows(write_samples(HARNESSES["evalplus"], tmp_path, programs))
    assert [(line["task_id"], line["solution"]) for line in lines] == [
        ("a", "x = 1\n"),
        ("a", ""),
        ("b", "y = 2\n"),
        ("b", "z = 3\n"),
    ]
    assert json.loads(write_samples(HARNESSES["livecodebench"], tmp_path, programs).read_text()) == [
        {"question_id": "a", "code_list": ["x = 1\n", ""]},
        {"question_id": "b", "code_list": ["y = 2\n", "z = 3\n"]},
    ]


RESULTS = {  # as EvalPlus 0.3.1, BigCodeBench 0.2.5 and LiveCodeBench wrote them for two replies
    "evalplus": {
        "date": "",
        "hash": "",
        "eval": {
            "HumanEval/9000": [
                {
                    "task_id": "HumanEval/9000",
                    "solution": "",
                    "base_status": "pass",
                    "plus_status": "fail",
                    "base_fail_tests": [],
                    "plus_fail_tests": [[[-3, 3]]],
                },
                {
                    "task_id": "HumanEval/9000",
                    "solution": "",
                    "base_status": "timeout",
                    "plus_status": "pass",
                    "base_fail_tests": [],
                    "plus_fail_tests": [],
                },
            ]
        },
    },
    "bigcodebench": {
        "date": "",
        "eval": {
            "BigCodeBench/9000": [
                {"task_id": "BigCodeBench/9000", "solution": "", "status": "pass", "details": {}},
                {
                    "task_id": "BigCodeBench/9000",
                    "solution": "",
                    "status": "fail",
                    "details": {"ALL": "invalid syntax"},
                },
            ]
        },
    },
    "livecodebench": [{"question_id": "9001", "code_list": ["", ""], "graded_list": [True, False], "pass@1": 0.5}],
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_become_our_rows(tmp_path, name):
    (tmp_path / "r.json").write_text(json.dumps(RESULTS[name]))
    (row,) = HARNESSES[name].read(tmp_path / "r.json")
    assert row["base"] == [True, False] and pass_at_1([row]) == [0.5]
    assert row["plus"] == ([False, False] if name == "evalplus" else None)


def test_questions_come_from_the_harness_or_the_hub_with_the_harness_s_ids():
    evalplus = HARNESSES["evalplus"]
    own = questions(evalplus, "humaneval", FIXTURES / "evalplus_humaneval.jsonl")
    assert {(one.id, one.question) for one in own} == {
        (one.id, one.question) for one in questions(evalplus, "humaneval", FIXTURES / "humanevalplus.jsonl")
    }
    hub = questions(evalplus, "mbpp", FIXTURES / "mbppplus.jsonl")
    assert [(one.id, one.entry_point) for one in hub] == [("Mbpp/9005", "unroll"), ("Mbpp/9006", "halves")]
    (task,) = questions(HARNESSES["bigcodebench"], "instruct-hard", FIXTURES / "bigcodebench.jsonl")
    assert task.question.startswith("Plot a histogram") and task.entry_point == "task_func"
    call, stdin = questions(HARNESSES["livecodebench"], "release_v4", FIXTURES / "livecodebench_full.jsonl")
    assert "def driestRun" in call.question and "# YOUR CODE HERE" in stdin.question
    with pytest.raises(EngineError, match="has no column 'instruct_prompt'"):
        questions(HARNESSES["bigcodebench"], "instruct", FIXTURES / "humaneval.jsonl")
    with pytest.raises(EngineError, match="does not hold the questions of EvalPlus's mbpp"):
        questions(evalplus, "mbpp", FIXTURES / "humanevalplus.jsonl")


def test_bigcodebench_is_told_to_stay_on_this_machine():
    words = command(HARNESSES["bigcodebench"], "instruct-hard", Path("s.jsonl"))
    assert words[words.index("--execution") + 1] == "local"
    assert words[words.index("--split") + 1 : words.index("--split") + 4] == ["instruct", "--subset", "hard"]
    assert own_prompt(HARNESSES["bigcodebench"], "instruct").user.endswith("block:\n{question}\n")
    assert own_prompt(HARNESSES["evalplus"], "mbpp") is EVALPLUS


def test_a_harness_that_is_missing_names_its_installation(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.harness.ROOT", tmp_path)
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert installed(HARNESSES["evalplus"]) is None
    with pytest.raises(EngineError, match=r"evalplus is not installed; run `.*pip install evalplus==0.3.1`"):
        execute(HARNESSES["evalplus"], "humaneval", tmp_path / "samples.jsonl")


def test_a_harness_that_dies_is_told_with_its_last_word(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no route to the data; exit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr("tools.harness.installed", lambda harness: python)
    with pytest.raises(EngineError, match=r"did not finish \(no route to the data\); see .*harness.log"):
        execute(HARNESSES["evalplus"], "humaneval", tmp_path / "samples.jsonl")


def test_verdicts_without_the_libraries_of_bigcodebench_are_refused(tmp_path, monkeypatch):
    result, rate = json.dumps(RESULTS["bigcodebench"]), json.dumps({"gt_pass_rate": 0.0})
    python = tmp_path / "python"
    said = [f"echo '{result}' > samples_eval_results.json", f"echo '{rate}' > samples_pass_at_k.json"]
    python.write_text("\n".join(["#!/bin/sh", *said, ""]))
    python.chmod(0o755)
    monkeypatch.setattr("tools.harness.installed", lambda harness: python)
    with pytest.raises(EngineError, match="Only 0.0% of BigCodeBench's own solutions pass here"):
        execute(HARNESSES["bigcodebench"], "complete", tmp_path / "samples.jsonl")


def test_a_model_s_programs_are_collected_once_and_executed_only_when_asked(tmp_path, capsys):
    words = [
        "evalplus",
        "--dataset",
        "humaneval",
        "--out",
        str(tmp_path),
        "--questions",
        str(FIXTURES / "humanevalplus.jsonl"),
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "outside the judge" in said and "Repeat with --execute" in said
    samples = read_rows(tmp_path / "samples.jsonl")
    assert [one["task_id"] for one in samples] == [one.id for one in read_benchmark(FIXTURES / "humanevalplus.jsonl")]
    replies = json.loads((tmp_path / "replies.json").read_text())
    assert all(mine[0].startswith(EVALPLUS.prefill) for mine in replies.values())
    assert not (tmp_path / "samples_eval_results.json").exists()
    made = (tmp_path / "samples.jsonl").stat().st_mtime_ns
    assert main(words) == 0 and (tmp_path / "samples.jsonl").stat().st_mtime_ns == made
    assert main([*words, "--prompt", "profile"]) == 1
    assert "samples of another request" in capsys.readouterr().err
    assert main([*words[:2], "mbqq", *words[3:]]) == 1


def test_several_samples_and_another_extraction(tmp_path):
    samples = collect(
        HARNESSES["bigcodebench"],
        "instruct",
        FIXTURES / "bigcodebench.jsonl",
        tmp_path,
        load_profile("pocket"),
        "data/models/policy",
        n=2,
        temperature=1.0,
        prompt="profile",
        extraction="whole_reply",
    )
    rows = read_rows(samples)
    assert [row["task_id"] for row in rows] == ["BigCodeBench/9000"] * 2
    assert rows[0]["solution"] == json.loads((tmp_path / "replies.json").read_text())["BigCodeBench/9000"][0]


def test_a_base_model_is_given_what_evalplus_gives_it():
    evalplus = HARNESSES["evalplus"]
    for dataset, hub in (("humaneval", "humanevalplus"), ("mbpp", "mbppplus")):
        released = read_rows(FIXTURES / f"evalplus_{dataset}.jsonl")
        given = {one["task_id"]: one["prompt"].strip() + "\n" for one in released}  # evalplus/codegen.py
        for path in (f"evalplus_{dataset}", hub):  # in both layouts
            asked = questions(evalplus, dataset, FIXTURES / f"{path}.jsonl")
            assert {one.id: beginning(dataset, one.question) for one in asked} == given


@pytest.mark.parametrize(
    ("dataset", "text", "kept"),
    [
        ("humaneval", "    return 1\n\ndef main():\n", "    return 1\n"),
        ("humaneval", "\treturn 1\nclass A:", "    return 1"),
        ("humaneval", "    assert xs\n    return 1\nprint(f(2))\nassert f(1)", "    assert xs\n    return 1"),
        (
            "mbpp",
            "def f(x):\n    return 1\ndef g():\n    pass\nassert f(1)",
            "def f(x):\n    return 1\ndef g():\n    pass",
        ),
        ("mbpp", 'def f(x):\n    return 1\n"""\nWrite a', "def f(x):\n    return 1"),
    ],
)
def test_a_completion_ends_before_the_first_stop_string(dataset, text, kept):
    assert until(text, STOPS + MORE_STOPS[dataset]) == kept


@pytest.mark.parametrize("dataset, hub", [("humaneval", "humanevalplus"), ("mbpp", "mbppplus")])
def test_the_program_is_prompt_and_completion(dataset, hub):
    """With EvalPlus's own solutions as completions, cut at a stop string that comes after them."""
    released = {one["task_id"]: one["canonical_solution"] for one in read_rows(FIXTURES / f"evalplus_{dataset}.jsonl")}
    problems, handed = read_benchmark(FIXTURES / f"{hub}.jsonl"), []
    for one in questions(HARNESSES["evalplus"], dataset, FIXTURES / f"{hub}.jsonl"):
        said = until(f"{released[one.id]}\nassert {one.entry_point}(1)\n", STOPS + MORE_STOPS[dataset])
        program = extract_program(beginning(dataset, one.question) + said, one.entry_point)
        handed.append(Program(one.id.replace("Mbpp/", "MBPP/"), program, "m"))
    with Judge(workers=1, limits=Limits(cpu_seconds=2.0, wall_seconds=60)) as judge:
        assert all(report.passed for report in judge_programs(judge, problems, handed))


def test_stop_strings_are_those_of_evalplus():
    python = installed(HARNESSES["evalplus"])
    if python is None:
        pytest.skip("EvalPlus is not installed")
    script = (
        "import json; from evalplus.provider.utility import EOS, extra_eos_for_direct_completion as more;"
        "print(json.dumps([EOS, *map(more, ('humaneval', 'mbpp'))]))"
    )
    found = json.loads(subprocess.run([python, "-c", script], capture_output=True, check=True).stdout)
    assert [tuple(one) for one in found] == [STOPS, MORE_STOPS["humaneval"], MORE_STOPS["mbpp"]]


def by_completion(model, out, *more, questions="humanevalplus"):
    asked = ["evalplus", "--dataset", "humaneval", "--questions", str(FIXTURES / f"{questions}.jsonl")]
    return main([*asked, "--model", str(model), "--out", str(out), *more])


@pytest.fixture
def base_model(tmp_path):
    """A random one, without a chat template; its context is long enough for the prompts."""
    folder = save_tiny_policy(tmp_path / "base", max_position_embeddings=2048)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_without_a_chat_template_is_told_of_completion_and_asked_by_it(base_model, tmp_path, capsys):
    assert by_completion(base_model, tmp_path / "chat") == 1
    told = capsys.readouterr().err
    assert "has no chat template" in told and "`--prompt completion` asks as EvalPlus asks base models." in told
    asked = {one.id: one.question for one in read_benchmark(FIXTURES / "humanevalplus.jsonl")}
    assert by_completion(base_model, tmp_path / "raw", "--prompt", "completion") == 0
    replies = json.loads((tmp_path / "raw" / "replies.json").read_text())
    assert replies.keys() == asked.keys()
    for name, (reply,) in replies.items():
        begun = asked[name].strip() + "\n"
        assert reply.startswith(begun)
        assert reply == begun + until(reply[len(begun) :], STOPS + MORE_STOPS["humaneval"])
    more = ("--prompt", "completion", "--samples", "3")
    assert by_completion(base_model, tmp_path / "three", *more) == 0
    sampled = json.loads((tmp_path / "three" / "replies.json").read_text())
    assert all(len(mine) == 3 and len(set(mine)) > 1 for mine in sampled.values())
    assert by_completion(base_model, tmp_path / "raw", *more) == 1
    assert "samples of another request" in capsys.readouterr().err


def test_each_prompt_is_completed_as_it_would_be_alone(base_model):
    """Padding on the left changes nothing: the likeliest tokens, one question at a time."""
    network, tokenizer = load_policy(base_model, device="cpu"), load_tokenizer(base_model, chats=False)
    asked = questions(HARNESSES["evalplus"], "humaneval", FIXTURES / "humanevalplus.jsonl")
    params = SamplingParams(temperature=0.0, max_new_tokens=40, batch_size=8, seed=0)
    together = complete(network, tokenizer, "humaneval", asked, params)
    for problem, (program,) in zip(asked, together, strict=True):
        ids = tokenizer(beginning("humaneval", problem.question), return_tensors="pt")["input_ids"]
        said = network.generate(input_ids=ids, do_sample=False, max_new_tokens=40)[0, ids.shape[1] :]
        whole = beginning("humaneval", problem.question) + tokenizer.decode(said, skip_special_tokens=True)
        assert whole.replace("\t", "    ").startswith(program)


def test_a_base_model_that_is_asked_in_a_chat_is_recognised(tmp_path, capsys):
    folder = save_tiny_policy(tmp_path / "base", max_position_embeddings=2048)
    for name, key, value in (("generation_config", "eos_token_id", 0), ("tokenizer_config", "eos_token", END)):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert by_completion(folder, tmp_path / "out") == 0
    told = "looks like a base model (its template ends a reply with <|im_end|>, it does not); `--prompt completion`"
    assert told in capsys.readouterr().out
    assert by_completion("data/models/policy", tmp_path / "pocket") == 0
    assert "looks like a base model" not in capsys.readouterr().out


def test_only_evalplus_is_asked_by_completion(tmp_path, capsys):
    words = ["bigcodebench", "--dataset", "complete", "--questions", str(FIXTURES / "bigcodebench.jsonl")]
    assert main([*words, "--out", str(tmp_path), "--prompt", "completion"]) == 1
    assert "Only EvalPlus is asked by completion here" in capsys.readouterr().err


def test_the_summary_holds_a_greedy_figure_against_what_is_published():
    rows = [{"id": str(i), "base": [i < 150], "plus": [i < 141]} for i in range(164)]
    told = summary(HARNESSES["evalplus"], "humaneval", rows, "Qwen/Qwen2.5-Coder-7B-Instruct", as_published=True)
    assert "HumanEval+: pass@1 0.860" in told
    assert "published 0.860 (AceCoder, arXiv 2502.01718v4, table of RL results), tolerance 0.0125: reproduced" in told
    assert "published 0.823 (d3LLM's leaderboard (another harness)), tolerance 0.0125: not reproduced (shown" in told
    few = summary(HARNESSES["evalplus"], "humaneval", rows[:9], "Qwen/Qwen2.5-Coder-7B", as_published=True)
    assert "published" not in few
    assert HARNESSES["bigcodebench"].datasets["complete-hard"] == "BigCodeBench-Complete-Hard"
    assert HARNESSES["livecodebench"].datasets["release_v4"] == "LiveCodeBench-v4"


def test_folders_are_compared_question_by_question(tmp_path, capsys):
    def judged(name, passed, prefix="HumanEval"):
        states = {True: "pass", False: "fail"}
        rows = {f"{prefix}/{i}": [{"base_status": "pass", "plus_status": states[ok]}] for i, ok in enumerate(passed)}
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples_eval_results.json").write_text(json.dumps({"eval": rows}))
        return str(tmp_path / name)

    def error(*folders):
        assert main(["compare", *folders]) == 1
        return capsys.readouterr().err

    start, rule = judged("start", [True] * 10 + [False] * 10), judged("rule", [True] * 15 + [False] * 5)
    assert main(["compare", start, rule, start]) == 0
    said = capsys.readouterr().out
    assert f"less that of {start}, with 95% intervals over 20 questions" in said
    assert f"{rule}, base: +0.000 [+0.000, +0.000]" in said and f"{start}, plus: +0.000" in said
    assert f"{rule}, plus: +0.250 [+0.0" in said
    assert "holds other questions than" in error(start, judged("mbpp", [True] * 20, "Mbpp"))
    assert "There are no results in" in error(start, str(tmp_path))
    (tmp_path / "rule" / "samples_eval_results.json").write_text("{")
    assert "is no whole file of results" in error(start, rule)
    (tmp_path / "live").mkdir()
    live = tmp_path / "live" / HARNESSES["livecodebench"].results
    live.write_text(json.dumps(RESULTS["livecodebench"]))
    assert live.name == "samples_codegeneration_output_eval_all.json"
    assert main(["compare", str(live.parent), str(live.parent)]) == 0 and "plus" not in capsys.readouterr().out
