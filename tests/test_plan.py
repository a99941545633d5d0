import json
import re
import subprocess
import sys

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config

from acelib.__main__ import main
from acelib.core import EngineError, ModelError, ProfileError
from acelib.core.profiles import ROOT, load_profile, profile_names
from acelib.models.generation import load_policy
from acelib.preflight.cost_model import CostModel, at_scale, fits, kept_questions
from acelib.preflight.machine import disk_gib
from acelib.training.forecast import FULL, HALF, SHAPES, MemoryModel, Shape, shape_of
from tools.plan import plan, smallest_cards
from tools.together import misfits, require_together


def built(size):
    s = SHAPES[size]
    heads = {"0.5B": 14, "7B": 28}[size]
    config = Qwen2Config(
        num_hidden_layers=s.layers,
        hidden_size=s.hidden,
        intermediate_size=s.intermediate,
        vocab_size=s.vocabulary,
        num_attention_heads=heads,
        num_key_value_heads=s.key_values * heads // s.hidden,
        tie_word_embeddings=s.tied,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("size", ["0.5B", "7B"])
def test_the_formula_counts_what_transformers_builds(size):
    assert built(size).num_parameters() == SHAPES[size].parameters


def test_the_formula_counts_the_adapters_that_peft_builds():
    model = get_peft_model(built("0.5B"), LoraConfig(r=8, target_modules="all-linear"))
    assert model.get_nb_trainable_parameters()[0] == SHAPES["0.5B"].adapters(8)


def test_a_local_folder_is_read():
    folder = ROOT / "data" / "models" / "policy"
    assert shape_of(str(folder)).parameters == load_policy(folder, device="cpu").num_parameters()


def test_an_unknown_model_is_an_error_that_names_what_is_known():
    with pytest.raises(ModelError, match="0.5B, 1.5B"):
        shape_of("somebody/else-7B")


QWEN3 = dict(
    num_hidden_layers=3, hidden_size=64, intermediate_size=96, vocab_size=100, num_attention_heads=4,
    num_key_value_heads=2, head_dim=32,
)  # fmt: skip


def test_heads_that_are_larger_than_the_hidden_state_are_counted(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    shape = shape_of(str(tmp_path))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen3Config(**QWEN3, tie_word_embeddings=False))
    built = model.num_parameters()
    assert shape.parameters == pytest.approx(built, rel=0.01) and shape.cache(1) == 2 * 3 * 64 * HALF
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    assert adapted.get_nb_trainable_parameters()[0] == shape.adapters(8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"n_embd": 8}', "num_hidden_layers"),
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        (json.dumps(QWEN3 | {"vocab_size": None}), "TypeError"),
        (json.dumps(QWEN3 | {"num_attention_heads": 0, "head_dim": None}), "ZeroDivisionError"),
        (json.dumps(QWEN3 | {"num_experts": 8}), "a mixture of experts"),
    ],
)
def test_a_config_of_another_kind_is_one_sentence(tmp_path, capsys, text, said):
    (tmp_path / "config.json").write_text(text)
    assert main(["plan", "--profile", "single-gpu", "--set", f"models.policy={tmp_path}"]) == 1
    assert re.fullmatch(rf"\nThe shape of .* is not known \(.*{said}.*; give .*\.\n", capsys.readouterr().err)
    assert disk_gib(load_profile("single-gpu", {"models.policy": str(tmp_path)})) == 1.0


def training_gib(shape, gpus, rows, tokens, *, lora_rank=0, frozen=HALF, checkpointing=True, **more):
    """Of a step on so many GPUs, below adapters of `lora_rank` with weights of `frozen` bytes, those of the passes."""
    dtype = {HALF: "bfloat16", FULL: "float32"}[frozen]
    values = {"plan.gpus": gpus, "engine.launch": "configs/zero3-8.yaml", "engine.lora_rank": lora_rank}
    model = MemoryModel(load_profile("pocket", values | {"models.dtype": dtype}))
    return model.training_gib(shape, rows, tokens, checkpointing, **more)


def test_sharding_and_a_reference_change_the_memory_as_they_must():
    alone, eight = (training_gib(SHAPES["7B"], gpus, 1, 2048) for gpus in (1, 8))
    assert alone > 16 * 7.6e9 / 2**30 and eight < alone / 5
    with_reference = training_gib(SHAPES["7B"], 8, 1, 2048, reference=True)
    assert with_reference - eight == pytest.approx(2 * SHAPES["7B"].parameters / 8 / 2**30)


def test_adapters_leave_frozen_weights_in_the_dtype_of_the_passes():
    shape = SHAPES["1.5B"]  # weights that learn have a bf16 copy beside their 16 bytes
    full, half, whole = (
        training_gib(shape, 1, 0, 0, lora_rank=rank, frozen=size) for rank, size in ((0, HALF), (32, HALF), (32, FULL))
    )
    assert full - half == pytest.approx((16 * shape.parameters - 16 * shape.adapters(32)) / 2**30)
    assert whole - half == pytest.approx(2 * shape.parameters / 2**30)


def test_activations_are_kept_or_computed_again_and_logits_held_in_tiles():
    shape = SHAPES["0.5B"]
    again, kept = (training_gib(shape, 1, 4, 500, lora_rank=8, checkpointing=one) for one in (True, False))
    one_layer = 2000 * (20 * shape.hidden + 8 * shape.intermediate + 2 * 500)
    assert kept - again == pytest.approx((23 * one_layer - 24 * 2000 * 2 * shape.hidden) / 2**30)
    few, many = (training_gib(shape, 1, 1, 500, logits=logits) for logits in (100, 500))
    assert many - few == pytest.approx(12 * (2**25 - 100 * shape.vocabulary) / 2**30)


@pytest.mark.parametrize(("dtype", "size"), [(torch.bfloat16, HALF), (torch.float32, FULL)])
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.slow
def test_a_layer_keeps_for_its_gradient_what_the_formula_says(rank, dtype, size):
    """Two layers less one, of four padded sequences less two (copies of weights are kept, too). To 2%: attention's
    log-sums, four bytes per head, and what is between an adapter's two matrices are left out."""
    tokens, weights, kept = 128, set(), {}
    wide = dict(hidden_size=512, intermediate_size=1024, num_attention_heads=4, num_key_value_heads=2, vocab_size=64)

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    def bytes_of(layers, rows):
        model = Qwen2ForCausalLM(Qwen2Config(**wide, num_hidden_layers=layers)).to(dtype if rank else torch.float32)
        if rank:
            model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear"))
        kept.clear()
        weights.clear()  # of models that are gone, whose places others take
        weights.update(one.untyped_storage().data_ptr() for one in model.parameters())
        ids, half = torch.ones((rows, tokens), dtype=torch.long), dtype == torch.bfloat16
        mask = ids.clone()
        mask[0, -5:] = 0
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=half),
            disable_input_dtype_casting(model, active=half),
        ):
            model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
        return sum(one.nbytes() for one in kept.values())

    shape = Shape(1, 512, 1024, 256, 64, True)
    asked = dict(lora_rank=rank, frozen=size, checkpointing=False)
    computed = training_gib(shape, 1, 4, tokens, **asked) - training_gib(shape, 1, 2, tokens, **asked)
    four, two = (bytes_of(2, rows) - bytes_of(1, rows) for rows in (4, 2))
    assert (four - two) / 2**30 == pytest.approx(computed, rel=0.02)


def stages(profile):
    return CostModel(profile).stages()


def stage(what, *arguments):
    return next(one for one in stages(load_profile(*arguments)) if one.what == what)


def test_hours_follow_the_gpus_and_the_rollouts():
    a = stage("RL, rule", "paper", {"reinforce.eval_every": 170, "reinforce.eval_questions": 1})
    b = stage(
        "RL, rule",
        "paper",
        {"reinforce.eval_every": 170, "reinforce.eval_questions": 1, "plan.gpus": 4, "reinforce.steps": 170},
    )
    assert b.tokens == 2 * a.tokens and b.hours == pytest.approx(4 * a.hours, rel=1e-3)


def test_one_learner_does_not_get_faster_by_more_gpus():
    alone = {"engine.launch": "none", "reward_model.batch_size": 8}
    a, b = (stage("reward model, filtered tests", "paper", alone | {"plan.gpus": gpus}) for gpus in (1, 8))
    assert a.hours == b.hours and a.gib == b.gib


def test_vllm_beside_the_trainer_takes_its_share_of_the_card():
    little, much = (stage("RL, rule", "single-gpu", {"engine.vllm_memory": share}) for share in (0.3, 0.9))
    states = training_gib(SHAPES["0.5B"], 1, 0, 0, reference=True)
    assert much.gib == pytest.approx(states + 0.9 * 24e9 / 2**30) and not fits(much, load_profile("single-gpu"))
    assert fits(little, load_profile("single-gpu"))


def decided(name, **values):
    """Which of the two trainings compute their activations again, with `engine.gradient_checkpointing: auto`."""
    asked = {key.replace("__", "."): value for key, value in values.items()}
    model = MemoryModel(load_profile(name, asked | {"engine.gradient_checkpointing": "auto"}))
    return [section for section in ("reward_model", "reinforce") if model.checkpoints(section)]


def test_activations_are_kept_where_the_forecast_lets_them(tmp_path):
    both = ["reward_model", "reinforce"]
    assert decided("single-gpu") == decided("colab") == decided("real") == ["reward_model"]
    assert decided("single-gpu-7b-4bit") == ["reward_model"]
    assert decided("single-gpu-7b") == decided("single-gpu-7b-base") == decided("paper") == both
    assert decided("single-gpu-7b", plan__gpu_memory_gb=141) == ["reward_model"] and decided("real-gpu") == []
    assert decided("pocket") == both, "no card is stated"
    assert decided("single-gpu", models__policy="somebody/else") == both, "nobody knows its shape"
    assert decided("single-gpu", reinforce__micro_batch=4) == both
    full = decided("single-gpu", engine__vllm_memory=0.4)  # when nothing is learnt; activations take no more
    assert full == ["reward_model"]
    for one in (True, False):
        model = MemoryModel(load_profile("single-gpu", {"engine.gradient_checkpointing": one}))
        assert model.checkpoints("reinforce") is model.checkpoints("reward_model") is one


def test_auto_takes_the_hours_and_the_memory_of_what_it_decides():
    kept, again, auto = (
        {one.what: one for one in stages(load_profile("single-gpu", {"engine.gradient_checkpointing": how}))}
        for how in (False, True, "auto")
    )
    for what in ("RL, rule", "RL, reward model"):
        assert auto[what] == kept[what] and kept[what].hours < again[what].hours
    assert auto["reward model, filtered tests"] == again["reward model, filtered tests"]
    text = plan(load_profile("single-gpu"))
    assert "auto decides: computed again in notebook 04, kept in 06.\n" in text
    assert "auto decides" not in plan(load_profile("paper")) + plan(load_profile("published"))


def test_the_card_that_is_named_holds_what_the_profile_decides_and_not_what_it_would_there():
    """The profile decides for the card of its plan, so a smaller one has to hold just that."""
    asked = {"engine.gradient_checkpointing": "auto", "plan.gpu_memory_gb": 141}
    large, known = load_profile("single-gpu-7b", asked), load_profile("single-gpu-7b")
    assert max(smallest_cards(large)) == 141 and max(smallest_cards(known)) == 80


def test_what_does_not_fit_is_marked():
    text = plan(load_profile("paper", {"plan.gpus": 1}))
    assert "does not fit" in text and re.search(r"06  RL, rule.*! > 141 GB", text)
    assert "or run what one such card holds: make course PROFILE=single-gpu-7b\n" in text


def test_the_smallest_card_that_is_sold_is_named_for_each_stage():
    profile = load_profile("single-gpu")
    cards = smallest_cards(profile)
    assert cards[:3] == [0, 0, 8] and max(cards) == 24 and re.search(r"\n    all .* 24 GB\n", plan(profile))
    for size, holds in ((24, True), (16, False)):
        sized = load_profile("single-gpu", {"plan.gpu_memory_gb": size})
        assert all(fits(one, sized) for one in stages(sized)) is holds


ALONE, LONG = {"engine.launch": "none"}, {"reward_model.max_length": 100}
ZERO, FSDP = ({"engine.launch": f"configs/{name}-1.yaml"} for name in ("zero3", "fsdp2"))


@pytest.mark.parametrize(
    ("name", "values", "number", "said"),
    [
        ("single-gpu-7b", ZERO, "04", "LoRA takes none such; set engine.launch to configs/gpu-1.yaml"),
        ("single-gpu-7b", FSDP, "06", "LoRA takes none such"),
        ("single-gpu", ZERO | {"engine.generation": "transformers"}, "06", "which cannot sample"),
        ("colab", {"engine.generation": "vllm"}, "04", "set engine.launch to configs/gpu-1.yaml, or engine.generation"),
        ("single-gpu", LONG, "04", "a reply of up to 1,024, .* raise it to 1,224"),
        ("single-gpu", {"engine.vllm_parallel": 8}, "03", "GPUs, and a machine has 1; lower it"),
        ("paper", {"engine.vllm_parallel": 3}, "06", "whose number engine.vllm_parallel = 3 does not divide"),
        ("paper", {"reward_model.batch_size": 20}, "04", "batch_size = 20; take a multiple of 8"),
        ("paper", {"reinforce.rollout_questions": 28}, "06", "rollout_questions = 28; take a multiple of 8"),
    ],
)
def test_what_a_notebook_would_refuse_after_hours_is_told_before(name, values, number, said):
    profile = load_profile(name, values)
    assert re.search(f"! cannot be run: .*{said}", plan(profile))
    with pytest.raises(EngineError, match=f"^Profile {name} cannot be run: .*{said}"):
        require_together(profile, [number], profile.plan.gpus)
    require_together(profile, ["00", "08"])


@pytest.mark.parametrize("name", profile_names())
def test_the_parts_of_every_profile_go_together(name):
    profile = load_profile(name)
    assert not misfits(profile, gpus=profile.plan.gpus)
    assert not misfits(load_profile("published", ALONE | LONG))  # nothing is trained


@pytest.mark.parametrize(
    ("name", "values", "lacking"),
    [
        ("single-gpu", {"plan.gpus": 0}, "plan.gpus"),
        ("pocket", {"plan.gpus": 1}, "plan.gpu_memory_gb"),
        ("pocket", {"models.device": "cuda"}, "plan.gpus and plan.gpu_memory_gb"),
        ("pocket", {"engine.generation": "vllm"}, "plan.gpus and plan.gpu_memory_gb"),
    ],
)
def test_a_plan_without_its_gpus_does_not_say_that_none_is_needed(name, values, lacking):
    with pytest.raises(ProfileError, match=f"asks for GPUs .*, and its plan has 0 for {lacking}; set plan.gpus"):
        plan(load_profile(name, values))


@pytest.mark.parametrize("name", [name for name in profile_names() if name != "pocket"])
def test_every_gpu_profile_fits_its_cards(name):
    profile = load_profile(name)
    assert all(fits(one, profile) for one in stages(profile)) and "does not fit" not in plan(profile)


def test_one_card_of_24_gb_is_done_in_hours_and_takes_1_5b_with_adapters():
    profile = load_profile("single-gpu")
    assert profile.plan.gpu_memory_gb == 24 and sum(one.hours for one in stages(profile)) < 10
    adapted = load_profile("single-gpu-1.5b")
    assert all(fits(one, adapted) for one in stages(adapted)) and "2 bytes per frozen weight, 16 per adapter's" in plan(
        adapted
    )
    full = load_profile("single-gpu-1.5b", {"engine.lora_rank": 0})
    assert not all(fits(one, full) for one in stages(full))


def asked_for(words):
    """The values of the line in profiles/single-gpu.yaml that sets them, its words beginning with `words`."""
    text = (ROOT / "profiles" / "single-gpu.yaml").read_text(encoding="utf-8")
    asked = re.search(rf'SET="({re.escape(words)}[^"]*)"', text)[1]
    return {key: yaml.safe_load(value) for key, value in (one.split("=") for one in asked.split())}


def test_one_card_of_24_gb_takes_7b_in_4_bits_and_in_no_more():
    quantised, plain = (load_profile("single-gpu-7b-4bit", {"engine.quantise": one}) for one in ("nf4", "none"))
    assert all(fits(one, quantised) for one in stages(quantised)) and not all(fits(one, plain) for one in stages(plain))
    assert sum(one.hours for one in stages(quantised)) < 24 and "0.516 bytes per frozen weight" in plan(quantised)
    assert quantised.plan.gpu_memory_gb == 24 and shape_of(quantised.models.policy) == SHAPES["7B"]
    assert quantised.plan.generation_utilisation < load_profile("single-gpu").plan.generation_utilisation
    with pytest.raises(ProfileError, match="sampled by transformers"):
        load_profile("single-gpu-7b-4bit", {"engine.generation": "vllm"})
    larger = load_profile("single-gpu-7b-4bit", {"reward_model.base": quantised.models.policy})
    assert [one.what for one in stages(larger) if not fits(one, larger)] == ["RL, reward model"]


def test_the_rehearsal_fits_on_the_card_of_each_line_for_card_sh():
    """The `SET` of step 4 in docs/hardware.md, with what a line of step 1 has besides (`SMALL`)."""
    text = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
    (asked,) = REHEARSAL.findall(text)
    lines = re.findall(r"echo '(P=[^']+)' > card.sh", text)
    for line in lines:
        given = dict(re.findall(r'(\w+)="?([^";]*)"?', line))
        words = f"{asked} {given['SMALL']}".split()
        short = load_profile(
            given["P"], {key: yaml.safe_load(value) for key, value in (one.split("=") for one in words)}
        )
        assert all(fits(one, short) for one in stages(short)), line
        whole = load_profile(given["P"])
        assert set(given["MODELS"].split()) == {whole.models.policy, whole.reward_model.base}, line
        hours = 4.5 * sum(one.hours for one in stages(whole))
        assert hours < int(given["WHOLE"].rstrip("h")) < 1.2 * hours, line
    assert len(lines) == 6


def test_one_card_of_80_gb_does_7b_within_a_day_and_sixty_dollars():
    profile = load_profile("single-gpu-7b")
    hours = sum(one.hours for one in stages(profile))
    assert profile.plan.gpus == 1 and hours < 24 and hours * profile.plan.dollars_per_gpu_hour < 60
    base = load_profile("single-gpu-7b", {"models.policy": "Qwen/Qwen2.5-Coder-7B"})
    assert [one.gib for one in stages(base)] == [one.gib for one in stages(profile)]


def test_a_t4_is_done_within_three_hours():
    profile = load_profile("colab")
    assert profile.plan.gpu_memory_gb == 16 and sum(one.hours for one in stages(profile)) < 3
    assert (profile.models.dtype, profile.engine.generation, profile.engine.launch) == (
        "float32",
        "transformers",
        "none",
    )


def test_the_readme_says_what_the_plan_computes():
    rows = re.findall(
        r"`make course PROFILE=([\w-]+)[^|]*\| ([\d.]+) hours, \$([\d.]+)", (ROOT / "README.md").read_text("utf-8")
    )
    assert [row[0] for row in rows] == ["single-gpu", "single-gpu-7b-48gb", "single-gpu-7b", "colab"]
    for name, hours, dollars in rows:
        profile = load_profile(name)
        computed = sum(one.hours for one in stages(profile))
        spent = computed * profile.plan.dollars_per_gpu_hour
        assert (hours, dollars) == (f"{computed:.1f}", f"{spent:.{1 if 0 < spent < 10 else 0}f}"), name


REHEARSAL = re.compile(r'RUN_DIR=runs/rehearsal SET="([^"$]+)')


def test_the_page_on_hardware_says_what_the_plan_computes():
    """Computed hours and dollars of each profile: rehearsal, first result, the rule alone, the whole, all of these."""
    text = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
    table = text[text.index("| profile, card, disk |") :].partition("\n\n")[0].splitlines()[2:]
    told, name = {}, ""
    for row in table:
        profile, what, computed, _ = (one.strip() for one in row.strip("|").split("|"))
        name = profile.partition("`,")[0].strip("`") or name
        told[name, what] = computed
    asked = {key: yaml.safe_load(one) for key, one in (one.split("=") for one in REHEARSAL.search(text)[1].split())}
    first = {"data.adopt_rows": 4000, "reinforce.steps": 8}
    small = {"reinforce.rollout_questions": 8, "reinforce.updates_per_rollout": 1}

    def hours(name, values, less=""):
        return sum(one.hours for one in stages(load_profile(name, values)) if one.what != less)

    for (name, what), said in told.items():
        rehearsal = hours(name, asked | (small if "4bit" in name else {}))
        computed = {
            "rehearsal": rehearsal,
            "first result": hours(name, first),
            "whole, rule alone": hours(name, {}, "RL, reward model"),
            "whole": hours(name, {}),
            "rehearsal, first result and whole": rehearsal + hours(name, first) + hours(name, {}),
        }[what]
        spent = computed * load_profile(name).plan.dollars_per_gpu_hour
        dollars = f"{spent:.1f}".replace("0.0", "0") if spent < 9.95 else f"{spent:.0f}"
        assert said == f"{computed:.1f} h, ${dollars}", (name, what)
    assert len(told) == 20 and len({name for name, _ in told}) == 5


def test_weights_in_4_bits_take_a_quarter_but_for_the_embeddings():
    shape = SHAPES["7B"]
    embeddings = 2 * shape.vocabulary * shape.hidden * HALF
    assert shape.held(HALF, False) == HALF * shape.parameters
    rest = shape.held(HALF, True) - embeddings, shape.held(HALF, False) - embeddings
    assert rest[0] / rest[1] == pytest.approx(4.127 / 16, rel=0.01)


def test_without_vllm_it_fits_with_smaller_rollouts_as_the_profile_says():
    slow = load_profile("single-gpu", asked_for("engine.generation=transformers"))
    assert all(fits(one, slow) for one in stages(slow))
    whole = load_profile("single-gpu", {"engine.generation": "transformers"})
    assert not all(fits(one, whole) for one in stages(whole))


def test_adopted_data_cost_no_teacher():
    one, two = [one for one in stages(load_profile("single-gpu")) if one.notebook in ("01", "02")]
    assert one.what == two.what == "adopted" and one.hours == two.hours == one.dollars == 0
    made = [one.what for one in stages(load_profile("single-gpu", {"data.adopt": "none"}))]
    assert made[:2] == ["teacher imagines tests", "proxy filters tests"]


def test_of_adopted_data_one_reward_model_is_trained():
    def trained(**changes):
        return [one.what for one in stages(load_profile("single-gpu", changes)) if one.notebook == "04"]

    assert trained() == ["reward model, filtered tests"]
    assert trained(**{"data.adopt": "none"}) == ["reward model, filtered tests", "reward model, all tests"]


def test_what_is_fetched_counts_every_model_once_and_those_that_made_adopted_data_not_at_all():
    small, large = "Qwen/Qwen2.5-Coder-0.5B-Instruct 1.0", "Qwen/Qwen2.5-Coder-7B-Instruct 15.2"
    assert f"1 for weights to fetch ({small})" in plan(load_profile("single-gpu"))
    assert f"16 for weights to fetch ({small}, {large})" in plan(load_profile("single-gpu", {"data.adopt": "none"}))
    here = dict.fromkeys(("models.policy", "models.proxy", "reward_model.base"), "data/models/policy")
    assert "0 for weights to fetch (none)" in plan(load_profile("single-gpu", here))


def test_a_teacher_behind_a_server_costs_dollars_and_no_hours():
    asked = {
        "models.teacher": "https://host/v1#m",
        "remote.dollars_per_million_input": 2,
        "remote.dollars_per_million_output": 4,
    }
    teacher = stage("teacher imagines tests", "paper", asked)
    assert teacher.hours == 0 and teacher.dollars == pytest.approx(124_006 / 1e6 * (250 * 2 + 1200 * 4))


def test_commands_name_the_launcher_the_cluster_and_the_server():
    text = plan(load_profile("paper-multinode"))
    assert "accelerate launch --config_file configs/zero3-2x8.yaml" in text
    assert "ray start --head" in text and "ray start --address=<first machine>:6379" in text
    served = plan(load_profile("paper", {"engine.vllm_mode": "server", "models.teacher": "http://localhost:9000/v1#m"}))
    assert "vllm serve Qwen/Qwen2.5-Coder-7B-Instruct --tensor-parallel-size 2 --port 8000" in served
    assert "vllm serve m --port 9000" in served and "ray start" not in served
    assert "everything from the questions of TIGER-Lab/AceCode-87K" in plan(load_profile("single-gpu"))


def test_only_sampling_for_pairs_is_spread_over_machines():
    hours = {name: {one.what: one.hours for one in stages(load_profile(name))} for name in ("paper", "paper-multinode")}
    for what in ("teacher imagines tests", "proxy filters tests", "evaluation of 4 models"):
        assert hours["paper-multinode"][what] == hours["paper"][what]
    assert hours["paper-multinode"]["policy writes 16 programs each"] == pytest.approx(
        hours["paper"]["policy writes 16 programs each"] / 2
    )


def test_best_of_n_is_scored_by_both_reward_models_where_there_are_two():
    one, two = (stage("best of 64, scored", "paper", {"data.adopt": source}) for source in ("some/set", "none"))
    whole = HALF * SHAPES["7B"].parameters / 2**30  # the scorer is in one process, the policy shared by two cards
    assert one.gib == two.gib == whole > stage("policy writes 16 programs each", "paper").gib
    only_read = (
        one.tokens * 2 * SHAPES["7B"].parameters / (8 * 989e12 * load_profile("paper").plan.training_utilisation)
    )
    assert two.hours - one.hours == pytest.approx(only_read / 3600)


def test_other_numbers_of_questions(capsys):
    profile = load_profile("paper")
    assert kept_questions(profile) == pytest.approx(87_000, rel=0.01)
    small, large = (plan(profile, questions) for questions in (87_000, 10_000_000))
    assert "87,000 questions, 85 RL rollouts" in small and "10,000,000 questions, 9,792 RL rollouts" in large
    assert main(["plan", "--profile", "single-gpu", "--questions", "8000"]) == 0
    assert "8,000 questions, 128 RL rollouts" in capsys.readouterr().out
    assert main(["plan", "--profile", "paper", "--questions", "0"]) == 1


def test_a_notebook_shows_its_stages_and_values_on_larger_profiles():
    head, rule, *rows = at_scale("06", "reinforce.learning_rate").split("\n\n")[0].splitlines()
    assert head == (
        "|  | `single-gpu`: Qwen2.5-Coder-0.5B-Instruct, 1 x RTX 4090 "
        "| `single-gpu-7b`: Qwen2.5-Coder-7B-Instruct, 1 x H100 | `single-gpu-7b-base`: Qwen2.5-Coder-7B, 1 x H100 "
        "| `paper`: Qwen2.5-Coder-7B-Instruct, 8 x H100 |"
    )
    assert rule.count("---") == 5
    assert [row.split(" | ")[0] for row in rows] == ["| RL, rule", "| RL, reward model", "| `reinforce.learning_rate`"]
    assert rows[-1].endswith("| 5e-07 |") and rows[0].count(" minutes, ") == 4
    assert "| - | " in at_scale("01"), "adopted questions need no teacher"


def test_every_profile_has_a_plan(capsys):
    for name in profile_names():
        assert main(["plan", "--profile", name]) == 0
    said = capsys.readouterr().out
    assert "needs no GPU" in said and said.count("make course PROFILE=paper ONLY=") == 7 and "not measured" in said


def test_few_dollars_are_told_to_a_tenth():
    assert re.search(r"\n06  RL, rule .* 0\.4 +16 .*\n", plan(load_profile("single-gpu")))
    text = plan(load_profile("single-gpu-7b"))
    assert re.search(r"\n    all +13\.2 +13\.2 +33 +80 GB\n", text) and re.search(r"\n04 .* 6\.5 +43 .*\n", text)


def test_who_reads_the_plan_may_leave_before_its_end():
    done = subprocess.run(
        ["bash", "-c", '"$0" -m acelib plan --profile single-gpu | true', sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


@pytest.mark.slow
def test_planning_loads_no_model_library():
    script = (
        "import sys; from acelib.__main__ import main; main(['plan', '--profile', 'paper']); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
