"""Sampling programs for many questions and judging them: in shards, on this machine or on a Ray cluster.

A shard is the unit of everything: sampled by one model, judged, and written as one Parquet file by this process, the
only one that writes. So a stop loses the shards in flight and no others, nodes need no common disk, and the programs
are the same wherever a shard is sampled, because a seed depends on its prompt alone and the shard is what is batched.
"""

import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from acelib.core import (
    CourseError,
    DataError,
    EngineError,
    Profile,
    digest,
    is_current,
    making,
    path_digest,
    read_rows,
    write_rows,
)
from acelib.engine.cluster import ClusterJudge, join_cluster
from acelib.engine.serving import open_sampler, reply_settings
from acelib.judge import Judge
from acelib.models import SamplingParams
from acelib.sampling import judge_programs, sample_programs, samples_to_rows
from acelib.schema import Problem, Program, Row

Progress = Callable[[float, int, str], None]
MOST_WORKERS = 1024  # of a Judge
AHEAD = 2  # shards at each sampler: it begins the next one while the last one is judged
EVERY = 1.0  # seconds between two looks at what the samplers have done of their shards
LABEL = "sampling and judging"


def sample_and_judge(
    profile: Profile,
    problems: Sequence[Problem],
    params: SamplingParams,
    folder: Path,
    progress: Progress | None = None,
) -> list[Row]:
    """AceCode-87K rows with `params.n` judged programs of the profile's policy per problem (`samples_to_rows`), in the
    order of the problems.

    `profile.engine` says what samples (`open_sampler`), how many questions make a shard, and whether one process does
    it (`cluster: none`) or a Ray cluster: one sampler per `vllm_parallel` GPUs, or per node where there are none, while
    all processors judge. Finished shards lie in `folder` and are not made again as long as questions, model and
    settings are the same; `progress(done, total, label)` counts questions, its label tells the throughput. Raises
    EngineError when the cluster has no sampler (left), JudgeError when there is no cluster, DataError when two problems
    share an id, and what `open_sampler` raises.
    """
    if len({problem.id for problem in problems}) < len(problems):
        raise DataError("Two problems have the same id; give every problem its own.")
    size, location = profile.engine.shard_questions, profile.resolve(profile.models.policy)
    there = replace(profile, models=replace(profile.models, policy=location))  # the same folder, wherever it is sampled
    options = dict(params=params, prompt=profile.prompts.solve, model_name=profile.models.policy)
    shards = [problems[start : start + size] for start in range(0, len(problems), size)]
    weights = path_digest(location) if Path(location).is_dir() else location
    judging = asdict(replace(profile.judge, workers=1))
    settings = [options | {"params": asdict(params)}, reply_settings(profile), weights, judging]
    sources = [[settings, [asdict(problem) for problem in shard]] for shard in shards]
    paths = [folder / f"shard-{number:05d}.parquet" for number in range(len(shards))]
    logs = [path.with_name(f"{path.stem}-{digest(one)[:12]}.jsonl") for path, one in zip(paths, sources)]  # of replies
    missing = {number: shards[number] for number, path in enumerate(paths) if not is_current(path, sources[number])}
    meter = _Meter(progress, params.n, len(problems), sum(map(len, missing.values())))
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        ray, workers = None, profile.judge.workers
        if profile.engine.cluster != "none":
            ray = join_cluster(profile.engine.cluster)
            workers = min(MOST_WORKERS, max(1, int(ray.cluster_resources().get("CPU", 0))))
        made = _on_cluster(ray, there, options, missing, meter) if ray else _here(there, options, missing, logs, meter)
        with closing(made), (ClusterJudge if ray else Judge).from_settings(profile.judge, workers) as judge:
            for number, programs in made:
                rows = samples_to_rows(shards[number], programs, judge_programs(judge, shards[number], programs))
                with making(paths[number], sources[number]) as temporary:
                    write_rows(temporary, rows)
                logs[number].unlink(missing_ok=True)
                meter.show({number: len(shards[number])})
    return [row for path in paths for row in read_rows(path)]


class _Meter:
    """Questions done of all, and programs per second of what this call has made."""

    def __init__(self, progress: Progress | None, n: int, total: int, missing: int):
        self.progress, self.n, self.total, self.kept = progress, n, total, total - missing
        self.start, self.sampled = time.monotonic(), {}  # questions, by shard

    def show(self, sampled: dict[int, float]) -> None:
        self.sampled |= sampled
        if self.progress:
            made = sum(self.sampled.values())
            rate = self.n * made / max(1e-9, time.monotonic() - self.start)
            self.progress(round(self.kept + made, 2), self.total, f"{LABEL} ({rate:,.1f} programs/s)")


def _here(
    profile: Profile, options: dict, shards: dict[int, Sequence[Problem]], logs: Sequence[Path], meter: _Meter
) -> Iterator[tuple[int, list[Program]]]:
    """(shard, its programs), one after the other; `options` are those of `sample_programs`."""
    model, tokenizer = open_sampler(profile, profile.models.policy, logs[0].parent)
    for number, shard in shards.items():

        def progress(done: int, total: int, number: int = number, questions: int = len(shard)) -> None:
            meter.show({number: questions * done / total})

        yield number, sample_programs(model, tokenizer, shard, log=logs[number], **options, progress=progress)


class _Sampler:
    """In a Ray actor: opens its model once and samples one shard after the other."""

    def __init__(self, profile: Profile, options: dict):
        self.profile, self.options, self.opened, self.part = profile, options, None, (-1, 0.0)
        self._folder = tempfile.TemporaryDirectory(prefix="acelib-")

    def progress(self) -> tuple[int, float]:
        """(shard, how many of its questions are sampled). Asked while another thread is in `sample`."""
        return self.part

    def sample(self, number: int, shard: Sequence[Problem]) -> list[Program]:
        def progress(done: int, total: int) -> None:
            self.part = number, len(shard) * done / total

        folder = Path(self._folder.name)
        if self.opened is None:  # not in __init__, where Ray would wrap what goes wrong into text
            self.opened = open_sampler(self.profile, self.profile.models.policy, folder)
        log = folder / "replies.jsonl"
        try:
            return sample_programs(*self.opened, shard, log=log, **self.options, progress=progress)
        finally:
            log.unlink(missing_ok=True)


def _on_cluster(
    ray: Any, profile: Profile, options: dict, shards: dict[int, Sequence[Problem]], meter: _Meter
) -> Iterator[tuple[int, list[Program]]]:
    """(shard, its programs) as they come. What a lost sampler had in hand goes to the others."""
    waiting, flying, why = deque(shards), {}, ""
    samplers = _start_samplers(ray, profile, options)
    try:
        while waiting or flying:
            in_hand = Counter(place for place, _ in flying.values())
            for place, sampler in samplers.items():
                for number in [waiting.popleft() for _ in range(min(len(waiting), AHEAD - in_hand[place]))]:
                    flying[sampler.sample.remote(number, shards[number])] = place, number
            if not flying:
                raise EngineError(
                    f"The Ray cluster has lost its last sampler ({why}); start its nodes again and repeat "
                    "the command: every finished shard is kept."
                )
            ready, _ = ray.wait(list(flying), num_returns=1, timeout=EVERY)
            if not ready:
                meter.show(_sampled(ray, samplers.values(), {number for _, number in flying.values()}))
                continue
            (reference,) = ready
            place, number = flying.pop(reference)
            try:
                programs = ray.get(reference)
            except ray.exceptions.RayError as error:  # of the job; or the actor, its node, or the only copy is lost
                cause = getattr(error, "cause", None)
                if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(cause, EngineError):
                    raise (cause if isinstance(cause, CourseError) else error) from None
                lost = str(cause or error).partition("\n")[0]
            else:
                yield number, programs
                continue
            waiting.appendleft(number)
            meter.sampled.pop(number, None)
            if samplers.pop(place, None):
                why = f"{place}: {lost}"
                print(f"{LABEL}: lost the sampler on {why} Left: {len(samplers)}.", flush=True)
    finally:
        for sampler in samplers.values():
            ray.kill(sampler)


def _sampled(ray: Any, samplers: Iterable[Any], flying: set[int]) -> dict[int, float]:
    """Questions that are sampled of the shards in flight, as far as the samplers answer within a second."""
    asked = [sampler.progress.options(concurrency_group="progress").remote() for sampler in samplers]
    found = {}
    for reference in ray.wait(asked, num_returns=len(asked), timeout=EVERY)[0]:
        with suppress(ray.exceptions.RayError):  # a lost one, as its shard will say
            number, questions = ray.get(reference)
            found |= {number: questions} if number in flying else {}
    return found


def _start_samplers(ray: Any, profile: Profile, options: dict) -> dict[str, Any]:
    """One actor per `vllm_parallel` GPUs, or per node where there are none, by a name that says where it is."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    vllm = profile.engine.generation == "vllm"
    gpus = 0 if profile.models.device == "cpu" else profile.engine.vllm_parallel if vllm else 1
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    places = [(node, int(node["Resources"].get("GPU", 0)) // gpus if gpus else 0) for node in nodes]
    if not any(count for _, count in places):
        if vllm or not nodes:
            raise EngineError(
                f"No node of the Ray cluster has {max(1, gpus)} GPU(s) and a processor; add one with `ray start "
                "--address=<head>`, lower engine.vllm_parallel, or set engine.generation to transformers."
            )
        gpus, places = 0, [(node, 1) for node in nodes]
    # No processors of their own: these are the judge's, and a sampler that held the last one would wait for ever.
    actor = ray.remote(num_cpus=0, num_gpus=gpus, concurrency_groups={"progress": 1})(_Sampler)
    return {
        f"{node['NodeManagerAddress']} ({node['NodeID'][:6]}/{place})": actor.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(profile, options)
        for node, count in places
        for place in range(count)
    }
