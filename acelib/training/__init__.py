"""The trainers of notebooks 04 and 06: reward model and REINFORCE++, with checkpoints and logs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoints": ["fitting", "last_checkpoint"],
        "forecast": ["FULL", "HALF", "NF4", "SHAPES", "MemoryModel", "Shape", "shape_of"],
        "log": ["log_rows"],
        "reinforce_trainer": ["ReinforceTrainer", "make_reinforce_trainer", "trainer_arguments"],
        "reward_trainer": ["QuestionRewardTrainer", "make_reward_trainer"],
        "rollouts": ["question_order"],
        "settings": ["LOG_FILE", "adapters"],
    },
)
