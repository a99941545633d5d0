"""The one family of errors a reader of the course should ever see: a clear sentence that ends in a remedy."""


class CourseError(ValueError):
    """The caller gave something the course cannot work with; the message says what and how to mend it."""
