"""What every room stands on: errors, files, tables, logs, processes, profiles, and the run directory."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "digests": ["digest", "modules_digest", "path_digest", "profile_values"],
        "errors": [
            "ArtifactError",
            "CourseError",
            "DataError",
            "DeviceError",
            "EngineError",
            "FullDiskError",
            "JudgeError",
            "ModelError",
            "NotebookError",
            "ProfileError",
        ],
        "files": ["atomic", "flush", "full_disk_explained", "read_json", "write_json"],
        "hub": ["hub_problem", "in_short", "load_explained"],
        "logs": ["Log", "Progress", "end_of_records", "open_log"],
        "processes": ["Child", "GpuMemory", "end_descendants", "end_with_parent", "peak_memory_mb", "stoppable"],
        "manifests": ["is_current", "is_unchanged", "making", "read_manifest"],
        "profiles": ["HOW_ONLY", "Profile", "ROOT", "load_profile", "profile_names"],
        "run": ["Run", "installed", "versions"],
        "sections": ["assume", "Engine", "Reinforce", "Remote", "RewardModel"],
        "threads": ["Threads"],
        "tables": ["Row", "read_rows", "write_rows"],
    },
)
