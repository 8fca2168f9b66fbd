"""Every error that this project raises on purpose.

    HBIError                    something that the user can mend
    ├── InputError              an argument that cannot be used: an empty query, no videos, an unknown option
    │   └── VideoError          one video that cannot be read
    ├── BundleError             a model on disk that is incomplete, altered or of another format
    ├── HubError            a model that the hub does not give: no network, no such model, a download that is cut off
    ├── IndexStoreError         an index that is of another model, damaged, locked or cannot be written
    ├── DataError               a data set that is not in its published format
    ├── TrainingError           a recipe or a checkpoint that cannot be used
    ├── ExportError             a graph that does not compute what the model computes
    └── EngineError             a runtime refused a graph or failed while it ran one
        └── DeviceError         a device was asked for that cannot run here

The command line prints an `HBIError` as one line on stderr and exits with 1, and so what the system says of a file that
may not be read or does not fit; anything else is a bug and keeps its traceback.
"""

from hbi_engines.errors import DeviceError, EngineError, HBIError


class InputError(HBIError):
    """An argument that cannot be used."""


class VideoError(InputError):
    """One video that cannot be read."""


class BundleError(HBIError):
    """A model on disk that is incomplete, altered or of another format."""


class HubError(HBIError):
    """A model that the hub does not give: no network, no such model, a download that is cut off."""


class IndexStoreError(HBIError):
    """An index that is of another model, damaged, locked or cannot be written."""


class DataError(HBIError):
    """A data set that is not in its published format."""


class TrainingError(HBIError):
    """A recipe or a checkpoint that cannot be used."""


class ExportError(HBIError):
    """A graph that does not compute what the model computes."""


__all__ = [
    "BundleError",
    "DataError",
    "DeviceError",
    "EngineError",
    "ExportError",
    "HBIError",
    "HubError",
    "IndexStoreError",
    "InputError",
    "TrainingError",
    "VideoError",
]
