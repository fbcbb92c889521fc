"""What statements raise."""


class Error(Exception):
    """An error of a statement, with the text that SQL gives it."""


class PlanError(Error, ValueError):
    """The statement is wrong: its SQL, a name, a type, an argument, an option or a model. Nothing has been computed."""


class ExecutionError(Error, RuntimeError):
    """Data, a file or a resource is wrong: an image that cannot be read, a model file that is broken, a full disk."""


# Users see them, and catch them, under the package's name.
for _error in (Error, PlanError, ExecutionError):
    _error.__module__ = "datafusion_wae"
