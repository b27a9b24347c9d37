"""The exception tree of the whole project. Each message names the thing, the value, what was expected and the remedy.

PsalmStreamError
├── BadInput            what a user handed over cannot be used
│   ├── BadPrompt       a prompt that does not fit its frame, or itself
│   ├── BadConfig       a model or service setting
│   ├── BadWeights      a checkpoint that does not fit the model
│   └── Undecodable     bytes that are no picture
└── SourceFailed        a camera, file or URL that cannot be opened or went away
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


class Undecodable(BadInput):
    """Bytes that are no picture."""


class SourceFailed(PsalmStreamError):
    """A camera, file or URL that cannot be opened, or went away."""
