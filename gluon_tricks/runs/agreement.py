"""What the ranks of a run must have in common."""

import dataclasses
from typing import Any

from gluon_tricks.config.settings import Settings
from gluon_tricks.runs.checkpoint import versions

# What each rank may have its own of: files and threads.
OF_A_MACHINE = {"data_dir", "rec_train", "rec_train_idx", "rec_val", "rec_val_idx",
                "num_data_workers", "save_dir", "logging_file", "tensorboard", "resume",
                "teacher_params", "init_params", "use_pretrained", "resume_params",
                "resume_states"}


def agreed(settings: Settings, **more: Any) -> dict[str, Any]:
    """What `Ranks.check_same` compares: flags but those of files and threads, versions, `more`."""
    flags = {f"--{name.replace('_', '-')}": value
             for name, value in dataclasses.asdict(settings).items() if name not in OF_A_MACHINE}
    return {**flags, **versions(), **{name.replace("_", " "): what for name, what in more.items()}}
