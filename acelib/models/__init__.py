"""Language models: load them, sample from them, score with them, here or behind a server."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "client": ["remote_replies"],
        "devices": [
            "GIB",
            "Machine",
            "UNFRAGMENTED",
            "ask_apart",
            "free_gpu",
            "gpu_memory",
            "gpu_problem",
            "machine_facts",
            "out_of_memory_explained",
        ],
        "generation": [
            "Completion",
            "Conversation",
            "check_room",
            "generate",
            "load_policy",
            "load_tokenizer",
            "load_weights",
            "pick_device",
            "prompt_seeds",
            "prompt_tokens",
            "render",
            "sample_tokens",
            "solve_messages",
            "stop_tokens",
            "turn_end",
        ],
        "params": ["SamplingParams"],
        "prefix": ["pad", "read_on", "read_prompts", "response_logps", "token_positions", "unwrapped"],
        "reward_heads": ["LM_HEAD", "SUMMARY", "load_classifier", "local_folder", "read_head"],
        "server": ["Server", "connect", "is_address"],
    },
)
