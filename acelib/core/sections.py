"""The sections of a profile: which values there are, of which type, and within which bounds.

What each section and value means, its unit and its source stand in `profiles/pocket.yaml`. A stage takes its section as
`settings`. Sections are frozen dataclasses: `dataclasses.replace` makes a changed one, and pydantic checks that, too.
"""

import copy
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

T = TypeVar("T")
section = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True, str_min_length=1))

# YAML 1.1 reads 1e-5 (no dot) as text.
Real = Annotated[float, BeforeValidator(lambda value: float(value) if isinstance(value, str) else value)]
Share = Annotated[Real, Field(ge=0, le=1)]
PositiveShare = Annotated[Real, Field(gt=0, le=1)]
Temperature = Annotated[Real, Field(gt=0, le=2)]
LearningRate = Annotated[Real, Field(gt=0, le=0.1)]
Seconds = Annotated[Real, Field(gt=0, le=86_400)]
Dollars = Annotated[Real, Field(ge=0, le=10**6)]
Batch = Annotated[int, Field(ge=1, le=4096)]
Questions = Annotated[int, Field(ge=1, le=10**5)]
NewTokens = Annotated[int, Field(ge=8, le=32_768)]


def assume(settings: T, **changes) -> T:
    """`dataclasses.replace` without the checks, for what no profile may ask for."""
    changed = copy.copy(settings)
    vars(changed).update(changes)
    return changed


@section
class Data:
    seeds: str  # jsonl of {id, source, program}
    benchmark: str  # see acelib.data.benchmarks: the course's rows, HumanEval(+) or MBPP(+)
    laboratory: bool  # is the true meaning of a question known?
    adopt: str  # hub name or file with AceCode-87K's columns to start from, at notebook 03; "none" makes its own
    adopt_rows: int = Field(ge=0, le=10**7)  # 0: all
    decontaminate: tuple[str, ...]  # benchmarks, besides the one above, to keep out of what is adopted


@section
class LabelledModel:
    label: str
    model: str


@section
class Models:
    teacher: str
    proxy: str
    proxies: tuple[LabelledModel, ...] = Field(min_length=1)  # weaker to stronger
    policy: str
    dtype: Literal["float32", "bfloat16"]
    device: Literal["auto", "cpu", "cuda"]


@section
class Engine:
    launch: str  # "none" trains in the notebook's process; else an accelerate configuration such as those in configs/
    lora_rank: int = Field(ge=0, le=1024)  # 0: full fine-tuning
    quantise: Literal["none", "nf4"]  # how weights that are frozen below adapters are held
    gradient_checkpointing: Literal[True, False, "auto"]  # auto: where activations would not fit the plan's card
    generation: Literal["transformers", "vllm"]
    vllm_mode: Literal["colocate", "server"]  # in RL
    vllm_server: str
    vllm_memory: Real = Field(gt=0, le=0.95)
    vllm_parallel: int = Field(ge=1, le=64)
    checkpoints: int = Field(ge=1, le=10_000)
    cluster: str  # "none", or the address of a Ray cluster ("auto": the one this machine belongs to)
    shard_questions: Questions


@section
class Remote:
    concurrency: int = Field(ge=1, le=1000)
    timeout_seconds: Seconds
    max_retries: int = Field(ge=0, le=1000)
    max_dollars: Dollars
    dollars_per_million_input: Dollars
    dollars_per_million_output: Dollars
    max_refused: Share = 0.1


@section
class Prompts:
    teacher: str
    solve: str
    tests: str = "none"  # with synthesis.form turns: what the teacher is asked after the question

    @field_validator("teacher", "solve")
    @classmethod
    def _has_one_placeholder(cls, text: str, info: ValidationInfo) -> str:
        placeholder = {"teacher": "{program}", "solve": "{question}"}[info.field_name]
        if text.count(placeholder) != 1:
            raise ValueError(f"should contain {placeholder} exactly once")
        return text


@section
class Synthesis:
    questions: int = Field(ge=1, le=10**6)
    tests_per_question: int = Field(ge=1, le=50)
    form: Literal["json", "code", "turns"]
    temperature: Real = Field(ge=0, le=2)
    max_new_tokens: int = Field(ge=16, le=32_768)
    max_repeats: int = Field(ge=0, le=1000)
    batch_size: Batch


@section
class Filtering:
    min_tests: int = Field(ge=1, le=50)
    max_new_tokens: NewTokens
    batch_size: Batch


@section
class Sampling:
    n: int = Field(ge=2, le=256)
    temperature: Temperature
    top_p: PositiveShare
    max_new_tokens: NewTokens
    batch_size: Batch


@section
class Pairs:
    min_gap: Share
    min_chosen: Share
    min_rejected: Real = Field(ge=-1, le=1)
    strict: bool
    max_pairs_per_question: int = Field(ge=1, le=10_000)


@section
class RewardModel:
    base: str
    loss: Literal["bradley_terry", "regression"]
    learning_rate: LearningRate
    epochs: Real = Field(gt=0, le=100)
    batch_size: Batch
    micro_batch: Batch
    score_batch: int = Field(ge=1, le=65_536)
    warmup_ratio: Real = Field(ge=0, le=0.99)
    max_length: int = Field(ge=16, le=131_072)
    held_out: Real = Field(gt=0, le=0.9)


@section
class BestOfN:
    reward_model: str  # a published one in the place of notebook 04's, with `evaluation.trained`; "none" trains
    ns: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(min_length=1)
    questions: Questions
    temperature: Temperature
    top_p: PositiveShare


@section
class Reinforce:
    algorithm: Literal["reinforce++", "reinforce++-baseline", "rloo", "grpo", "dr_grpo", "dapo"]
    learning_rate: LearningRate
    beta: Real = Field(ge=0, le=10)
    epsilon: PositiveShare
    rollout_questions: Batch
    samples_per_question: int = Field(ge=2, le=256)
    steps: int = Field(ge=1, le=100_000)
    updates_per_rollout: int = Field(ge=1, le=256)
    micro_batch: Batch
    temperature: Temperature
    max_new_tokens: NewTokens
    max_kl: Real = Field(ge=0, le=10**6)
    reward_seconds: Seconds
    eval_every: int = Field(ge=1, le=100_000)
    eval_questions: Questions
    questions: Literal["hard quarter", "mixed"] = "hard quarter"  # which ones notebook 03 chooses


@section
class Evaluation:
    trained: tuple[str, ...]  # published policies, trained by rule and by reward model, in the place of notebook 06's
    samples: int = Field(ge=1, le=1024)
    temperature: Temperature
    questions: Questions
    bootstrap: int = Field(ge=100, le=10**6)


@section
class JudgeLimits:
    workers: int = Field(ge=1, le=1024)
    cpu_seconds: Real = Field(gt=0, le=3600)
    wall_seconds: Real = Field(gt=0, le=3600)
    memory_mb: int = Field(ge=64, le=1_048_576)


@section
class Plan:
    gpus: int = Field(ge=0, le=4096)
    gpu: str
    gpu_memory_gb: Real = Field(ge=0, le=1024)
    gpu_tflops: Real = Field(gt=0, le=100_000)  # of one, dense, in `models.dtype`
    training_utilisation: PositiveShare
    generation_utilisation: PositiveShare
    dollars_per_gpu_hour: Real = Field(ge=0, le=1000)
    question_tokens: int = Field(ge=1, le=100_000)
    program_tokens: int = Field(ge=1, le=100_000)
    reply_tokens: int = Field(ge=1, le=100_000)
    questions_kept: Share
    questions_with_pairs: Share
