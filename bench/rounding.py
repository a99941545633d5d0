"""Which share of a policy's weights one step of Adam changes at all, in bfloat16 and in float32.

    python bench/rounding.py [model folder]       the pocket policy by default; seconds on a CPU

The first step of Adam moves every weight by the learning rate, whatever the size of its gradient; later ones rarely by
more. A bfloat16 number has 8 significant bits, so the neighbours of one near 0.02 are 2^-13 = 0.00012 away.
"""

import argparse

import torch

from acelib.core import load_profile
from acelib.models import load_policy

RATES = {
    5e-7: "RL of the paper, 7B",
    1e-6: "RL on `single-gpu`",
    1e-5: "reward model of the paper",
    1e-4: "RL on `pocket`",
}


def changed(weights: torch.Tensor, dtype: torch.dtype, rate: float) -> float:
    """Share of `weights` (any shape), stored in `dtype`, that differ after a step of size `rate` in a random direction
    each."""
    before = weights.to(dtype)
    signs = torch.randint(0, 2, before.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return (before - (rate * signs).to(dtype) != before).float().mean().item()


def weights_of(folder: str) -> torch.Tensor:
    """All weights of a model in one row; those that are exactly 0 are left out, where any step is a change."""
    model = load_policy(folder, "float32", "cpu")
    flat = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    return flat[flat != 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="model folder (default: the pocket policy)")
    profile = load_profile("pocket")
    flat = weights_of(parser.parse_args().folder or profile.resolve(profile.models.policy))
    print(
        f"{len(flat):,} weights, median size {flat.abs().median():.2g}\n\n| step | where | bfloat16 | float32 |\n"
        "|---|---|---|---|"
    )
    for rate, where in RATES.items():
        shares = (changed(flat, dtype, rate) for dtype in (torch.bfloat16, torch.float32))
        print(f"| {rate:.0e} | {where} |", " | ".join(f"{share:.2%}" for share in shares), "|")


if __name__ == "__main__":
    main()
