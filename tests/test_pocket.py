"""The pocket world: its size, its splits, its phrasings and programs, and the wall around the truth."""

import ast
import json
import random
from itertools import islice
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from acelib.core.profiles import load_profile
from acelib.judge import Judge, Limits, Submission
from acelib.pocket import corpus, mistakes, problems, train
from acelib.pocket.laboratory import Laboratory
from acelib.pocket.primitives import PRIMITIVES

ROOT = Path(__file__).resolve().parents[1]
VALIDATION = [json.loads(line) for line in (ROOT / "data/validation.jsonl").read_text().splitlines()]
BENCHMARK = [json.loads(line) for line in (ROOT / "data/benchmark.jsonl").read_text().splitlines()]
SEEDS = [json.loads(line) for line in (ROOT / "data/seeds.jsonl").read_text().splitlines()]
QUESTION = (
    "Write a function `solve(xs)` that takes a list of integers. Keep only the even numbers, then compute the sum."
)


@pytest.fixture(scope="module")
def laboratory():
    return Laboratory.open(load_profile("pocket"))


def test_size_of_the_world():
    assert len(PRIMITIVES) >= 60
    assert all(len(set(p.phrases)) >= 3 for p in PRIMITIVES.values())
    assert problems.count_compositions() >= 10**5
    assert len(problems.STYLES) >= 2


def test_count_of_compositions_is_the_number_one_can_list():
    steps = [s for group in problems.steps_by_input().values() for s in group]
    pairs = sum(problems.follows(a, b) for a in steps for b in steps)
    triples = sum(problems.follows(a, b) * sum(problems.follows(b, c) for c in steps) for a in steps for b in steps)
    assert problems.count_compositions() == len(steps) + pairs + triples


def test_splits_are_disjoint_by_composition():
    held_out = {problems.understand(row["question"]).key for row in BENCHMARK + VALIDATION}
    assert len(held_out) == len(BENCHMARK) + len(VALIDATION) == 600
    trained, synthesised = (
        {c.key for c in islice(problems.compositions(7, split), 1500)} for split in ("train", "seeds")
    )
    assert not held_out & trained and not held_out & synthesised and not trained & synthesised
    assert {problems.split_of(problems.parse_key(key)) for key in held_out} == {"benchmark"}


def test_every_step_on_its_own_belongs_to_training():
    assert all(
        problems.split_of(problems.Composition((s,))) == "train"
        for group in problems.steps_by_input().values()
        for s in group
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_question_is_understood_as_what_it_was_made_from(seed):
    rng = random.Random(seed)
    for split in ("train", "seeds", "benchmark"):
        for composition in islice(problems.compositions(seed, split), 100):
            question = problems.phrase_question(rng, composition, "solve", "xs")
            assert problems.understand(question) == composition
            assert problems.parse_key(composition.key) == composition


@pytest.mark.parametrize(
    "text", ["", "Write a poem.", QUESTION.replace("even", "lucky"), QUESTION.replace("integers", "hopes")]
)
def test_other_text_is_not_understood(text, laboratory):
    assert problems.understand(text) is None
    assert laboratory.composition(text) is None
    assert laboratory.hidden_tests(text, 5) == []


def test_programs_of_every_primitive_and_style_mean_what_the_gold_function_says():
    """Each primitive in each style, and composed ones, judged on true tests."""
    rng, submissions = random.Random(3), []
    single = [problems.Composition((s,)) for group in problems.steps_by_input().values() for s in group]
    composed = list(islice(problems.compositions(3, "train", lengths=(2, 3)), 150))
    for composition in single + composed:
        for style in problems.STYLES:
            program = problems.write_program(rng, composition, "solve", problems.ARGUMENTS[composition.takes][0], style)
            submissions.append(Submission(program=program, tests=problems.true_tests(composition, "solve", 6, seed=1)))
    with Judge(workers=2, limits=Limits(cpu_seconds=2.0, wall_seconds=20.0, memory_mb=512)) as judge:
        reports = judge.run(submissions)
    assert [s.program for s, r in zip(submissions, reports) if r.pass_rate < 1] == []


def test_mistakes_take_an_operation_for_another_of_its_type():
    for name, primitive in PRIMITIVES.items():
        similar = [PRIMITIVES[other] for other in mistakes.lookalikes(name)]
        assert similar and primitive not in similar
        assert {(p.takes, p.gives) for p in similar} == {(primitive.takes, primitive.gives)}
    assert mistakes.lookalikes("evens")[0] == "odds" and mistakes.lookalikes("max")[0] == "min"
    assert 0.2 < sum(map(mistakes.is_treacherous, PRIMITIVES)) / len(PRIMITIVES) < 0.45


def test_a_mistaken_program_is_well_typed():
    rng, right = random.Random(0), 0
    for composition in islice(problems.compositions(3, "train"), 500):
        understood = mistakes.misread(rng, composition)
        assert (understood.takes, understood.gives) == (composition.takes, composition.gives)
        assert all(s.k in s.primitive.ks if s.primitive.ks else s.k is None for s in understood.steps)
        ast.parse(problems.write_program(rng, understood, "solve", "x"))
        right += understood == composition
    assert 150 < right < 300


def test_votes_tell_the_mistaken_programs_of_the_corpus(laboratory):
    conversations = list(islice(corpus.forum_examples(0), 60))
    hidden = [laboratory.hidden_tests(question["content"], 12) for question, _, _ in conversations]
    programs = [answer["content"].removeprefix("```python\n").removesuffix("```") for _, answer, _ in conversations]
    with Judge(workers=2) as judge:
        reports = judge.run([Submission(text, tuple(tests)) for text, tests in zip(programs, hidden, strict=True)])
    for (_, _, vote), report in zip(conversations, reports, strict=True):
        assert vote["content"] == "-" or report.passed
    assert sum(report.passed for report in reports) <= 6 + sum(vote["content"] == "+" for _, _, vote in conversations)


def test_the_question_carries_no_loss_and_the_vote_carries_much():
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/models/policy")
    question, answer, vote = conversation = next(corpus.forum_examples(0))
    weight = train.RECIPES["policy"].vote_weight
    ids, weights = train.encode(tokenizer, conversation, weight)
    asked = "".join(tokenizer.decode(i) for i, w in zip(ids, weights, strict=True) if w == 0)
    assert question["content"] in asked and asked.endswith("<|im_start|>assistant\n")
    assert [tokenizer.decode(i) for i in ids[-2:]] == [tokenizer.eos_token, vote["content"]]
    assert weights[-2:] == [1.0, weight] and set(weights) == {0.0, 1.0, weight}
    assert train.encode(tokenizer, [question, answer], weight) == (ids[:-1], weights[:-1])
    assert train.encode(tokenizer, conversation, 0.0) == (ids, [*weights[:-1], 0.0])


def test_imagined_tests_of_the_corpus_are_true(laboratory):
    for messages in islice(corpus.teacher_examples(11), 40):
        reply = json.loads(messages[-1]["content"])
        assert all(laboratory.test_is_valid(reply["question"], t) for t in reply["tests"])
        assert len(set(reply["tests"])) == len(reply["tests"])


@pytest.mark.parametrize(
    "test, valid",
    [
        ("assert solve([1, 2, 4]) == 6", True),
        ("assert solve([1, 2, 4]) == 7", False),
        ("assert solve([1, 2, 4]) == 6.0", False),
        ("assert solve('abc') == 3", None),
        ("assert solve([1, True]) == 0", None),
        ("assert solve(1, 2) == 3", None),
        ("assert solve(", None),
        ("", None),
        ("assert solve([0] * 3) == 0", None),
    ],
)
def test_validity(laboratory, test, valid):
    assert laboratory.test_is_valid(QUESTION, test) is valid


def test_shipped_benchmark_is_what_the_code_makes():
    assert corpus.benchmark_problems(20, seed=0) == BENCHMARK[:20]
    assert corpus.seed_programs(20, seed=0) == SEEDS[:20]
    assert all(len(row["tests"]) >= 8 for row in BENCHMARK)


def test_no_stage_can_reach_the_truth():
    """Only the laboratory knows `acelib.pocket`, and no stage knows the laboratory."""
    for path in (ROOT / "acelib").rglob("*.py"):
        if "pocket" in path.parts or path.name == "laboratory.py":
            continue
        imported = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in [getattr(node, "module", None) or "", *(a.name for a in node.names)]
        }
        assert not {n for n in imported if "laboratory" in n or "pocket" in n}, path


def test_a_profile_without_a_laboratory_says_so():
    assert Laboratory.open(load_profile("pocket", {"data.laboratory": False})) is None


def test_tokenizer_keeps_characters_and_digits_apart():
    tokenizer = corpus.train_tokenizer()
    text = "assert solve('abcAB12') == [-12, 345]"
    ids = tokenizer(text)["input_ids"]
    pieces = [tokenizer.decode([i]) for i in ids]
    assert tokenizer.decode(ids) == text
    assert {"a", "b", "c", "A", "B", "1", "2", "3"} <= set(pieces)
    messages = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("folder", sorted((ROOT / "data/models").iterdir()), ids=lambda p: p.name)
def test_shipped_models_are_ordinary_folders(folder):
    """`AutoTokenizer` splits words as training did; transformers 5.17 replaces the pre-tokenizer of qwen2 folders."""
    assert (folder / "model.safetensors").stat().st_size <= 10 * 2**20
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]
    tokenizer, saved = AutoTokenizer.from_pretrained(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    for messages in islice(corpus.teacher_examples(5), 5):
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == saved.encode(text).ids
        assert tokenizer.decode(saved.encode(text).ids) == text
