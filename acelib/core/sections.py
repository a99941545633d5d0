"""The sections of a profile: which values there are, of which type, and within which bounds.

What each value means, its unit and its source stand beside it in `profiles/pocket.yaml`. A stage takes its section as
`settings`.
"""

from dataclasses import MISSING, dataclass, field


def within(low: float, high: float, *, above: bool = False, default: float = MISSING):
    """A number in [low, high], or in (low, high] with `above`. Sequences: every element."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


def one_of(*choices: str):
    return field(metadata={"choices": choices})


def may_be_empty():
    return field(metadata={"empty": True})


def template(placeholder: str):
    """Text with exactly one `placeholder`; filled with str.replace, so other braces (JSON, code) may stand in it."""
    return field(metadata={"placeholder": placeholder})


@dataclass(frozen=True)
class Data:
    seeds: str  # jsonl of {id, source, program}
    benchmark: str  # see acelib.data.benchmarks: the course's rows, HumanEval(+) or MBPP(+)
    laboratory: bool  # is the true meaning of a question known?
    adopt: str  # hub name or file with AceCode-87K's columns to start from, at notebook 03; "none" makes its own
    adopt_rows: int = within(0, 10**7)  # 0: all
    decontaminate: tuple[str, ...] = may_be_empty()  # benchmarks, besides the one above, to keep out of what is adopted


@dataclass(frozen=True)
class LabelledModel:
    label: str
    model: str


@dataclass(frozen=True)
class Models:
    teacher: str
    proxy: str
    proxies: tuple[LabelledModel, ...]  # weaker to stronger
    policy: str
    dtype: str = one_of("float32", "bfloat16")
    device: str = one_of("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Engine:  # what trains and what samples, and on how many machines
    launch: str  # "none" trains in the notebook's process; else an accelerate configuration such as those in configs/
    lora_rank: int = within(0, 1024)  # 0: full fine-tuning
    generation: str = one_of("transformers", "vllm")
    vllm_mode: str = one_of("colocate", "server")  # in RL
    vllm_server: str
    vllm_memory: float = within(0, 0.95, above=True)
    vllm_parallel: int = within(1, 64)
    checkpoints: int = within(1, 10_000)
    cluster: str  # "none", or the address of a Ray cluster ("auto": the one this machine belongs to)
    shard_questions: int = within(1, 100_000)


@dataclass(frozen=True)
class Remote:  # for a teacher or proxy behind a server
    concurrency: int = within(1, 1000)
    timeout_seconds: float = within(0, 86_400, above=True)
    max_retries: int = within(0, 1000)
    max_dollars: float = within(0, 10**6)
    dollars_per_million_input: float = within(0, 10**5)
    dollars_per_million_output: float = within(0, 10**5)
    max_refused: float = within(0, 1, default=0.1)


@dataclass(frozen=True)
class Prompts:
    teacher: str = template("{program}")
    solve: str = template("{question}")


@dataclass(frozen=True)
class Synthesis:
    questions: int = within(1, 10**6)
    tests_per_question: int = within(1, 50)
    temperature: float = within(0, 2)
    max_new_tokens: int = within(16, 32_768)
    batch_size: int = within(1, 4096)


@dataclass(frozen=True)
class Filtering:
    min_tests: int = within(1, 50)
    max_new_tokens: int = within(8, 32_768)
    batch_size: int = within(1, 4096)


@dataclass(frozen=True)
class Sampling:
    n: int = within(2, 256)
    temperature: float = within(0, 2, above=True)
    top_p: float = within(0, 1, above=True)
    max_new_tokens: int = within(8, 32_768)
    batch_size: int = within(1, 4096)


@dataclass(frozen=True)
class Pairs:
    min_gap: float = within(0, 1)
    min_chosen: float = within(0, 1)
    min_rejected: float = within(-1, 1)
    strict: bool
    max_pairs_per_question: int = within(1, 10_000)


@dataclass(frozen=True)
class RewardModel:
    base: str
    loss: str = one_of("bradley_terry", "regression")
    learning_rate: float = within(0, 0.1, above=True)
    epochs: float = within(0, 100, above=True)
    batch_size: int = within(1, 4096)
    micro_batch: int = within(1, 4096)
    score_batch: int = within(1, 65_536)
    warmup_ratio: float = within(0, 0.99)
    max_length: int = within(16, 131_072)
    held_out: float = within(0, 0.9, above=True)


@dataclass(frozen=True)
class BestOfN:
    ns: tuple[int, ...] = within(1, 1024)
    questions: int = within(1, 10**5)
    temperature: float = within(0, 2, above=True)
    top_p: float = within(0, 1, above=True)


@dataclass(frozen=True)
class Reinforce:
    algorithm: str = one_of("reinforce++", "reinforce++-baseline", "rloo", "grpo", "dr_grpo", "dapo")
    learning_rate: float = within(0, 0.1, above=True)
    beta: float = within(0, 10)
    epsilon: float = within(0, 1, above=True)
    rollout_questions: int = within(1, 4096)
    samples_per_question: int = within(2, 256)
    steps: int = within(1, 100_000)
    updates_per_rollout: int = within(1, 256)
    micro_batch: int = within(1, 4096)
    temperature: float = within(0, 2, above=True)
    max_new_tokens: int = within(8, 32_768)
    max_kl: float = within(0, 10**6)
    reward_seconds: float = within(0, 86_400, above=True)
    eval_every: int = within(1, 100_000)
    eval_questions: int = within(1, 10**5)


@dataclass(frozen=True)
class Evaluation:
    samples: int = within(1, 1024)
    temperature: float = within(0, 2, above=True)
    questions: int = within(1, 10**5)
    bootstrap: int = within(100, 10**6)


@dataclass(frozen=True)
class JudgeLimits:
    workers: int = within(1, 1024)
    cpu_seconds: float = within(0, 3600, above=True)
    wall_seconds: float = within(0, 3600, above=True)
    memory_mb: int = within(64, 1_048_576)


@dataclass(frozen=True)
class Plan:
    gpus: int = within(0, 4096)
    gpu: str
    gpu_memory_gb: float = within(0, 1024)
    gpu_tflops: float = within(0, 100_000, above=True)  # dense bf16 peak of one
    training_utilisation: float = within(0, 1, above=True)
    generation_utilisation: float = within(0, 1, above=True)
    dollars_per_gpu_hour: float = within(0, 1000)
    question_tokens: int = within(1, 100_000)
    program_tokens: int = within(1, 100_000)
    reply_tokens: int = within(1, 100_000)
    questions_kept: float = within(0, 1)
    questions_with_pairs: float = within(0, 1)
