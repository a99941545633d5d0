"""The errors of the course: each message says what is wrong and ends with what to do."""


class CourseError(ValueError):
    """The family: the caller gave something that the course cannot work with."""


class ProfileError(CourseError):
    """A profile that does not exist, an unknown key, or a value of the wrong type or out of bounds."""


class DataError(CourseError):
    """Rows, files, replies, tests or benchmarks that do not have the layout or the content that is needed."""


class ModelError(CourseError):
    """A model that cannot be loaded or used as asked, or whose shape is not known."""


class DeviceError(CourseError):
    """A GPU that cannot be used, or whose memory does not suffice."""


class ArtifactError(CourseError):
    """An artefact, a log or a checkpoint that is missing, damaged, in use, or made from something else."""


class FullDiskError(CourseError):
    """Something could not be written because there is no room for it."""


class EngineError(CourseError):
    """What trains, samples or serves is not installed, does not fit together, or has ended badly."""


class JudgeError(CourseError):
    """The caller asked for something that the judge cannot do."""


class NotebookError(CourseError):
    """A notebook that is missing, breaks the rules for notebooks, or did not finish."""
