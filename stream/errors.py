"""The exception tree of the whole project. Each message names the thing, the value, what was expected and the remedy.

PsalmStreamError
├── BadInput            what a user handed over cannot be used
│   ├── BadPrompt       a prompt that does not fit its frame, or itself
│   ├── BadConfig       a model or service setting
│   ├── BadWeights      a checkpoint that does not fit the model
│   ├── BadRecord       bytes that are no message of this version
│   └── Undecodable     bytes that are no picture
├── SourceFailed        a camera, file or URL that cannot be opened or went away
├── BusFailed           a broker that cannot be reached, or refuses to work
├── LogLost             a log that no longer holds what is committed next
├── StoreFailed         a store that cannot be reached, or refuses to work
├── Fenced              a newer member holds the partition
└── StoreLost           a store that does not hold what the log says is true
"""


class PsalmStreamError(Exception):
    """Root of everything this project raises on purpose."""


class BadInput(PsalmStreamError):
    """What a user handed over cannot be used."""


class BadPrompt(BadInput):
    """A prompt that does not fit its frame, or itself."""


class BadConfig(BadInput):
    """A model or service setting that does not make sense."""


class BadWeights(BadInput):
    """A checkpoint that does not fit the model."""


class BadRecord(BadInput):
    """Bytes that are no message of this version of the service."""


class Undecodable(BadInput):
    """Bytes that are no picture."""


class SourceFailed(PsalmStreamError):
    """A camera, file or URL that cannot be opened, or went away."""


class BusFailed(PsalmStreamError):
    """A broker that cannot be reached, does not answer in time, or refuses to work."""


class LogLost(PsalmStreamError):
    """The log does not hold the records that are to be answered next."""


class StoreFailed(PsalmStreamError):
    """A store that cannot be reached, does not answer in time, or refuses to work."""


class Fenced(PsalmStreamError):
    """A newer member holds the partition: this one drops its turn and starts from what is committed."""


class StoreLost(PsalmStreamError):
    """The store does not hold the states of the checkpoint that the log says is committed."""
