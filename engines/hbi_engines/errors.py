"""The root of the error tree, and the part of it that belongs to the runtimes.

The whole tree is drawn at the top of `hbi_infer/errors.py`.
"""


class HBIError(Exception):
    """A problem that the user can mend. The message says what was given, what was expected and what to do."""


class EngineError(HBIError):
    """A runtime refused a graph or failed while it ran one."""


class DeviceError(EngineError):
    """The requested device cannot run here."""
