"""What the pocket models read in training (seed programs, questions, tests, solutions), and their tokenizer."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from acelib.pocket.mistakes import misread
from acelib.pocket.problems import (
    ARGUMENTS,
    ENTRY_POINTS,
    Composition,
    OutOfRange,
    assertion,
    compositions,
    phrase_question,
    random_value,
    true_tests,
    write_program,
)

TEACHER_PROMPT = "Write a question and tests for:\n{program}"
SOLVE_PROMPT = "{question}"
TESTS_PER_REPLY = 10
VOCABULARY = 1280
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The name of a function is the same token in the question, after `def` and after `assert`, so that it can be copied.
# Words merge with the character before them; letters inside '...' (test data) never merge, so that a model sees
# the characters it has to reverse or count. Digits stand alone, as in Qwen2.5.
_PIECES = Regex(
    r"""def |(?:\\n)?assert |`(?=\w+\()|(?<=def |sert |`)\w+|[ .(\[`"\n]?[A-Za-z_]{2,}(?![A-Za-z0-9]*')"""
    r"""|[ .(\[`"\n][A-Za-z_]|[A-Za-z]|[0-9]|[^A-Za-z0-9'\n ]+(?: [^A-Za-z0-9'\n ]+)*(?: (?=[0-9'-]))?|'|\s+"""
)

Message = dict[str, str]


def solve_messages(question: str, program: str) -> list[Message]:
    return [
        {"role": "user", "content": SOLVE_PROMPT.replace("{question}", question)},
        {"role": "assistant", "content": f"```python\n{program}```"},
    ]


def imagine_tests(rng: random.Random, composition: Composition, entry_point: str, n: int) -> list[str]:
    """`n` distinct correct asserts on small inputs, each after a comment that names each step and its value."""
    tests: dict[str, str] = {}
    for _ in range(20 * n):
        value = random_value(rng, composition.takes, longest=4)
        try:
            trace = composition.trace(value)
        except OutOfRange:
            continue
        if max(len(repr(v)) for v in trace) > 32:
            continue
        named = (f" {step.key.replace(':', ' ')}> {after!r}" for step, after in zip(composition.steps, trace[1:]))
        thought = f"# {trace[0]!r}" + "".join(named)
        tests.setdefault(repr(value), f"{thought}\n{assertion(entry_point, value, trace[-1])}")
        if len(tests) == n:
            break
    return list(tests.values())


def teacher_messages(seed_program: str, question: str, tests: list[str]) -> list[Message]:
    return [
        {"role": "user", "content": TEACHER_PROMPT.replace("{program}", seed_program)},
        {"role": "assistant", "content": json.dumps({"question": question, "tests": tests})},
    ]


def solve_examples(seed: int, split: str = "train") -> Iterator[list[Message]]:
    """An endless stream of (question, program) conversations."""
    rng = random.Random(f"solve/{seed}")
    for composition in compositions(seed, split):
        entry_point, argument = rng.choice(ENTRY_POINTS), rng.choice(ARGUMENTS[composition.takes])
        yield solve_messages(
            phrase_question(rng, composition, entry_point, argument),
            write_program(rng, composition, entry_point, argument),
        )


def forum_examples(seed: int, split: str = "train") -> Iterator[list[Message]]:
    """An endless stream of (question, somebody's program, the asker's vote); many of the programs are mistaken."""
    rng = random.Random(f"forum/{seed}")
    for composition in compositions(seed, split):
        entry_point, argument = rng.choice(ENTRY_POINTS), rng.choice(ARGUMENTS[composition.takes])
        understood = misread(rng, composition)
        answered = solve_messages(
            phrase_question(rng, composition, entry_point, argument),
            write_program(rng, understood, entry_point, argument),
        )
        yield [*answered, {"role": "user", "content": "+" if understood == composition else "-"}]


def teacher_examples(seed: int, split: str = "train") -> Iterator[list[Message]]:
    """An endless stream of (seed program, question and tests) conversations."""
    rng = random.Random(f"teacher/{seed}")
    for composition in compositions(seed, split):
        names = [(rng.choice(ENTRY_POINTS), rng.choice(ARGUMENTS[composition.takes])) for _ in range(2)]
        question = phrase_question(rng, composition, *names[1])
        tests = imagine_tests(rng, composition, names[1][0], TESTS_PER_REPLY)
        yield teacher_messages(write_program(rng, composition, *names[0]), question, tests)


def seed_programs(n: int, seed: int) -> list[dict[str, str]]:
    """`n` seed programs of distinct compositions from the ``seeds`` split, as rows of {id, source, program}."""
    rng, rows, seen = random.Random(f"seeds/{seed}"), [], set()
    for composition in compositions(seed, "seeds", lengths=(2, 2, 3)):
        if composition.key not in seen:
            seen.add(composition.key)
            program = write_program(
                rng, composition, rng.choice(ENTRY_POINTS), rng.choice(ARGUMENTS[composition.takes])
            )
            rows.append({"id": f"pocket/{len(rows)}", "source": "pocket", "program": program})
        if len(rows) == n:
            return rows
    raise AssertionError("the stream of compositions is endless")


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of `VOCABULARY` tokens with a ChatML template, trained on both kinds of conversation."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    solve, teach = solve_examples(1), teacher_examples(1)
    texts = ["\n" + m["content"] for _ in range(4000) for m in next(solve)]
    texts += ["\n" + m["content"] for _ in range(2000) for m in next(teach)]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL_TOKENS),
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=1024,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def benchmark_problems(n: int, seed: int, tests: int = 12) -> list[dict]:
    """`n` held-out problems with true tests, no composition twice: rows of {task_id, question, entry_point, tests}."""
    rng, rows, seen = random.Random(f"benchmark/{seed}"), [], set()
    for composition in compositions(seed, "benchmark", lengths=(2, 2, 3)):
        if composition.key in seen:
            continue
        seen.add(composition.key)
        entry_point, argument = rng.choice(ENTRY_POINTS), rng.choice(ARGUMENTS[composition.takes])
        rows.append(
            {
                "task_id": f"pocket-bench/{len(rows)}",
                "question": phrase_question(rng, composition, entry_point, argument),
                "entry_point": entry_point,
                "tests": true_tests(composition, entry_point, tests, seed),
            }
        )
        if len(rows) == n:
            return rows
    raise AssertionError("the stream of compositions is endless")
