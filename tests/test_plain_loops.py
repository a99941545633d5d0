"""The loops that notebooks 04 and 06 show in plain PyTorch make the updates that the trainers make."""

import ast
import copy
from importlib.util import module_from_spec, spec_from_file_location

import torch
from test_reinforce import PROBLEMS, profile, wordy
from test_reward_model import profile as scorer_profile
from test_reward_model import some_pairs
from tiny_models import save_tiny_policy

from acelib.models import load_policy, load_tokenizer
from acelib.reward_model import question_rows
from acelib.training import make_reinforce_trainer, make_reward_trainer
from runner.course import NOTEBOOKS
from runner.notebooks import code, read_notebook, tags


def plain_loop(number, folder):
    """A module of the cells tagged `plain-loop` and what their notebook imports; and the source of these cells."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    nodes = ast.parse("\n".join(code(path))).body
    imports = "\n".join(ast.unparse(one) for one in nodes if isinstance(one, ast.Import | ast.ImportFrom))
    source = "\n".join(cell.source for cell in read_notebook(path).cells if "plain-loop" in tags(cell))
    file = folder / f"loop_{number}.py"
    file.write_text(f"{imports}\n{source}\n")
    spec = spec_from_file_location(file.stem, file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, source


def weights(model):
    return torch.cat([one.detach().flatten() for one in model.parameters()])


def test_the_loop_of_notebook_06_makes_the_trainers_updates(tmp_path):
    loop, source = plain_loop("06", tmp_path)
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith(("from ", "import "))]
    assert len([line for line in lines if '"""' not in line]) <= 40
    small = profile(policy := save_tiny_policy(tmp_path / "policy"), steps=1, updates_per_rollout=3)
    trainer, s = make_reinforce_trainer(small, PROBLEMS, wordy, tmp_path / "scratch"), small.reinforce
    trainer.train()
    asked = trainer.train_dataset[: s.rollout_questions]
    model, reference = load_policy(policy, device="cpu"), load_policy(policy, device="cpu")
    asked = asked["prompt"], asked["problem_id"]
    rollout = loop.collect(model, reference, load_tokenizer(policy), *asked, wordy, s, 3 + 1)
    held_back = loop.learn(model, rollout, s, 3)
    assert (weights(model) - weights(reference)).abs().max() > 1e-3
    torch.testing.assert_close(weights(model), weights(trainer.model), rtol=0, atol=1e-5)
    assert len(held_back) == 3 and held_back[0] == 0 and held_back[-1] > 0


def test_the_update_of_notebook_04_is_the_trainers_first(tmp_path):
    loop, _ = plain_loop("04", tmp_path)
    base, pairs = save_tiny_policy(tmp_path / "base"), some_pairs(6)
    small = scorer_profile(base, epochs=1, warmup_ratio=0.0, held_out=0.01, batch_size=6)
    trainer = make_reward_trainer(small, pairs, tmp_path / "scratch")
    start, by_hand = weights(trainer.model), copy.deepcopy(trainer.model)
    trainer.train()
    assert trainer.state.global_step == 1
    loss = loop.one_update(by_hand, question_rows(pairs, load_tokenizer(base), 64), 4, small.reward_model.learning_rate)
    assert abs(loss - trainer.state.log_history[0]["loss"]) < 1e-4
    assert (weights(by_hand) - start).abs().max() > 1e-3
    torch.testing.assert_close(weights(by_hand), weights(trainer.model), rtol=0, atol=1e-5)
