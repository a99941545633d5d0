"""Rules for best-of-N next to the reward model: each turns what was recorded about the N samples of one question into
one score per sample, and the highest score is handed in (`acelib.selection` measures how good that choice is).

All of them choose among the same samples. What each needs on top, per sample:

    mean log-probability, self-certainty      one forward pass of a policy (`policy_confidence`)
    pass rate, dual agreement, majority vote  one run against the imagined tests; no true test is used
    tests, then reward model                  that run, and one forward pass of the reward model
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from acelib.errors import CourseError
from acelib.extraction import extract_program
from acelib.judge import LLM_PRELUDE, Judge, Report, Submission
from acelib.models import check_room, context_length, left_pad, render
from acelib.schema import Row, entry_point_of, read_rows
from acelib.selection import expected_best

OWN = ("pass rate", "filtered pass rate", "dual agreement", "majority vote", "average", "oracle")


class SelectorError(CourseError):
    """A recorded file that cannot be ranked, or records of one question that do not belong together."""


def mean_logprob(logits: torch.Tensor, tokens: torch.Tensor) -> float:
    """Mean over a reply's tokens of log p(token | what is before it), in nats; higher is likelier.

    logits: (tokens, vocabulary), row i predicts `tokens[i]`; tokens: (tokens,). -inf when there are no tokens. The
    mean, not the sum: a sum would choose the shortest reply.
    """
    if not len(tokens):
        return -math.inf
    return torch.log_softmax(logits.float(), dim=-1).gather(-1, tokens.unsqueeze(-1)).mean().item()


def self_certainty(logits: torch.Tensor) -> float:
    """Mean over a reply's tokens of KL(uniform || p), in nats: -1/(nV) sum_i sum_j log(V p(j | what is before i)).

    logits: (tokens n, vocabulary V). 0 for a policy that knows nothing, higher the surer it is; which tokens the reply
    has plays no part. -inf when there are no tokens. Kang et al. 2025, "Scalable Best-of-N Selection for Large
    Language Models via Self-Certainty".
    """
    if not len(logits):
        return -math.inf
    return -(torch.log_softmax(logits.float(), dim=-1).mean(dim=-1) + math.log(logits.shape[-1])).mean().item()


@torch.inference_mode()
def policy_confidence(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], replies: Sequence[str],
    batch_size: int = 32,
) -> dict[str, list[float]]:
    """`mean_logprob` and `self_certainty` of every reply under a policy at temperature 1: {name: (replies,)}.

    `prompts` are user messages. One forward pass gives both; each distinct text is read once. Text is all that was
    recorded, so the reply is tokenised anew, and the token that ended it does not count. Raises ModelError when a
    prompt and its reply exceed the model's context.
    """
    keys = list(zip(prompts, replies, strict=True))
    texts = {key: (render(tokenizer, [{"role": "user", "content": key[0]}]), key[1]) for key in keys}
    ids = {key: [tokenizer(text, add_special_tokens=False)["input_ids"] for text in pair]
           for key, pair in texts.items()}
    check_room([prompt + reply for prompt, reply in ids.values()], 0, context_length(model))
    order, found = sorted(ids, key=lambda key: sum(map(len, ids[key]))), {}
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        # Padded on the left, all replies end in the last column, so that only their logits have to be kept.
        tokens, mask = left_pad([sum(ids[key], []) for key in chunk], tokenizer.pad_token_id, model.device)
        longest = max(len(ids[key][1]) for key in chunk)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False,
                       logits_to_keep=longest + 1).logits[:, :-1]
        for key, row, one in zip(chunk, logits, tokens, strict=True):
            n = len(ids[key][1])
            row = row[longest - n :]
            found[key] = mean_logprob(row, one[len(one) - n :]), self_certainty(row)
    values = [found[key] for key in keys]
    return {"mean_logprob": [a for a, _ in values], "self_certainty": [b for _, b in values]}


def share_passed(passed: Sequence[Sequence[bool]], kept: Sequence[int] | None = None) -> list[float]:
    """Share of the tests that each sample passes, in [0, 1]; 0 for all when there are no tests.

    passed: (samples, tests). `kept` chooses the tests that survived filtering, by their places; None takes all.
    """
    table = _table(passed)
    table = table if kept is None else table[:, list(kept)]
    return table.mean(axis=1).tolist() if table.shape[1] else [0.0] * len(table)


def dual_agreement(passed: Sequence[Sequence[bool]]) -> list[float]:
    """CodeT's score: number of samples that pass exactly the same tests, times number of tests they pass.

    passed: (samples, tests). Chen et al. 2022, "CodeT: Code Generation with Generated Tests", section 2: the score of
    a consensus set is |S_x| |S_y|. Samples count as often as they were drawn; one that passes nothing scores 0.
    """
    groups = [row.tobytes() for row in _table(passed)]
    size = Counter(groups)
    return [float(size[group] * sum(group)) for group in groups]


def majority_vote(outputs: Sequence[Hashable | None]) -> list[float]:
    """Number of samples with the same output as this one, itself included.

    outputs: (samples,), whatever counts as one sample's output: its text, or what it returned for all inputs together
    (the largest cluster of AlphaCode, Li et al. 2022; exact-match MBR-Exec, Shi et al. 2022). None stands for a sample
    without output; it neither votes nor wins (0).
    """
    votes = Counter(output for output in outputs if output is not None)
    return [float(votes[output]) for output in outputs]


def rate_then_score(rates: Sequence[float], scores: Sequence[float]) -> list[float]:
    """The sample with the best `rates` wins, among equals the one with the best `scores`, say of a reward model.

    rates, scores: (samples,). Returns places in that order from 0 (worst); the same in both is the same place. Raises
    SelectorError when the two differ in length or hold values that are no numbers.
    """
    pairs = [(float(rate), float(score)) for rate, score in zip(rates, scores)]
    if len(rates) != len(scores) or any(math.isnan(value) for pair in pairs for value in pair):
        raise SelectorError(f"Cannot order samples by {len(rates)} pass rates and {len(scores)} scores; give one of "
                            "each per sample, all of them numbers.")
    place = {pair: float(number) for number, pair in enumerate(sorted(set(pairs)))}
    return [place[pair] for pair in pairs]


def shown_outputs(reports: Sequence[Report]) -> list[Hashable | None]:
    """What each sample did on every test, as far as the judge shows it, for `majority_vote`; None without any result.

    A test that passed stands for its expected value, one that failed for the value the judge names (its first 160
    characters), an exception or time-out for just that.
    """
    return [
        tuple((v.status, v.reason if v.status == "failed" else "") for v in report.verdicts)
        if any(v.status in ("passed", "failed") for v in report.verdicts) else None
        for report in reports
    ]


@dataclass(frozen=True)
class Recorded:
    """The samples of one question as a file records them. `programs` (samples,), None where a reply held no code;
    `kept`: places in `tests` of those that survived filtering; `correct` (samples,) of 0/1; `scores`: name ->
    (samples,)."""

    question: str
    programs: tuple[str | None, ...]
    tests: tuple[str, ...]
    kept: tuple[int, ...] | None
    correct: tuple[float, ...] | None
    scores: dict[str, tuple[float, ...]]


def read_recorded(path: str | Path) -> list[Recorded]:
    """Questions with their samples from a .jsonl (or .parquet) file, one question per row.

    Columns: `question`; `programs` (source code, null where there is none) or `replies` (the code is looked for);
    `tests` (asserts). Optional: `filtered_tests` (some of `tests`), `correct` (0/1 per sample), `scores` (an object:
    name -> one number per sample). Raises SelectorError, naming the question by its place from 1, when a column is
    missing or does not fit, or when an optional one is there for some questions only.
    """
    found = [_recorded(row, f"{path}, question {number}") for number, row in enumerate(read_rows(path), start=1)]
    if not found:
        raise SelectorError(f"{path} has no questions; record one per line.")
    for number, one in enumerate(found, start=1):
        odd = sorted(_optional(one) ^ _optional(found[0]))
        if odd:
            raise SelectorError(f"{path}, question {number} differs from question 1 in {', '.join(odd)}; record it for "
                                "all questions or for none.")
    return found


def rank(questions: Sequence[Recorded], judge: Judge) -> list[Row]:
    """Scores of every selector that needs no model; programs are run by `judge` and nowhere else.

    Rows: question, scores ({selector: (samples,)}), pick ({selector: place of the first sample with the highest
    score}), correct (as recorded, or None). Selectors: "pass rate", "dual agreement", "majority vote"; with filtered
    tests "filtered pass rate"; for every recorded score its own name and "<pass rate>, then <name>", by the filtered
    tests where there are any.
    """
    reports = iter(judge.run([Submission(program, one.tests, prelude=LLM_PRELUDE)
                              for one in questions for program in one.programs]))
    rows = []
    for one in questions:
        mine = [next(reports) for _ in one.programs]
        passed = [[verdict.passed for verdict in report.verdicts] for report in mine]
        scores = {"pass rate": share_passed(passed), "dual agreement": dual_agreement(passed),
                  "majority vote": majority_vote(shown_outputs(mine))}
        if one.kept is not None:
            scores["filtered pass rate"] = share_passed(passed, one.kept)
        tests = "pass rate" if one.kept is None else "filtered pass rate"
        for name, values in one.scores.items():
            scores |= {name: list(values), f"{tests}, then {name}": rate_then_score(scores[tests], values)}
        rows.append({
            "question": one.question,
            "scores": scores,
            "pick": {name: values.index(max(values)) for name, values in scores.items()},
            "correct": None if one.correct is None else list(one.correct),
        })
    return rows


def picked_correct(rows: Sequence[Row]) -> dict[str, float]:
    """Share of questions whose pick is correct, per selector, between the "average" sample and the "oracle".

    `rows` as `rank` gives them. Samples with equal scores share the pick evenly. Raises SelectorError when the file
    did not record what is correct.
    """
    if any(row["correct"] is None for row in rows):
        raise SelectorError("The file does not record which samples are correct; add the column `correct`.")
    columns = {"average": [fmean(row["correct"]) for row in rows]}
    for name in rows[0]["scores"]:
        columns[name] = [expected_best(row["correct"], row["scores"][name], len(row["correct"])) for row in rows]
    columns["oracle"] = [max(row["correct"]) for row in rows]
    return {name: fmean(values) for name, values in columns.items()}


def _table(passed: Sequence[Sequence[bool]]) -> np.ndarray:
    if len({len(row) for row in passed}) > 1:
        raise SelectorError("The samples of one question were run against different numbers of tests; give one "
                            "verdict per sample and test.")
    return np.array(passed, dtype=bool).reshape(len(passed), -1 if len(passed) and len(passed[0]) else 0)


def _optional(one: Recorded) -> set[str]:
    present = {"filtered_tests": one.kept, "correct": one.correct}
    return {name for name, value in present.items() if value is not None} | {f"scores.{name}" for name in one.scores}


def _recorded(row: Any, where: str) -> Recorded:
    def check(fits: bool, what: str) -> None:
        if not fits:
            raise SelectorError(f"{where}: {what}; mend or drop the line.")

    check(isinstance(row, dict), "it is no JSON object")
    question, tests = row.get("question"), row.get("tests")
    check(isinstance(question, str), "`question` must be a string")
    check(_list_of(tests, str) and tests, "`tests` must be a list of asserts, at least one")
    programs, replies = row.get("programs"), row.get("replies")
    if programs is None:
        check(_list_of(replies, str) and replies, "`programs` or `replies` must be a list of strings, at least one")
        entry_point = entry_point_of(tests, question)
        programs = [extract_program(reply, entry_point) for reply in replies]
    check(_list_of(programs, str | None) and programs, "`programs` must be a list of strings or nulls, at least one")
    filtered, correct, scores = row.get("filtered_tests"), row.get("correct"), row.get("scores") or {}
    if filtered is not None:
        check(_list_of(filtered, str) and set(filtered) <= set(tests), "`filtered_tests` must be some of `tests`")
    if correct is not None:
        fits = _list_of(correct, int | float) and len(correct) == len(programs) and set(correct) <= {0, 1}
        check(fits, f"`correct` must be a list of 0 or 1 for each of its {len(programs)} samples")
    check(isinstance(scores, dict), "`scores` must be an object of lists, name -> one number per sample")
    for name, values in scores.items():
        check(name not in OWN, f"`scores` must not use the name {name!r}, which is a selector of its own")
        fits = _list_of(values, int | float) and len(values) == len(programs) and not any(map(math.isnan, values))
        check(fits, f"`scores.{name}` must be a list of {len(programs)} numbers, one per sample")
    return Recorded(
        question, tuple(programs), tuple(tests),
        None if filtered is None else tuple(place for place, test in enumerate(tests) if test in set(filtered)),
        None if correct is None else tuple(map(float, correct)),
        {name: tuple(map(float, values)) for name, values in scores.items()},
    )


def _list_of(values: Any, kind: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)
