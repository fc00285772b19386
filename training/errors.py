"""Every error of training that ends a command with one line.

TrainingError
├── DataError         the images or rows cannot be learnt from
├── BaseError         the network to start from is unknown, or its weights cannot be had
├── RunError          the run's folder is not as the command needs it
├── FolderError       what is written would replace something else
├── LabelError        labels cannot be proposed, or a person's cannot be applied
├── ExportError       an exported file is not good enough
└── PromotionError    the run is not finished, or its network is not good enough
"""

from __future__ import annotations


class TrainingError(Exception):
    """A command cannot do what was asked; the message says why, and what to do."""


class DataError(TrainingError):
    """The images or rows cannot be learnt from."""


class BaseError(TrainingError):
    """The network to start from is unknown, or its weights cannot be had."""


class RunError(TrainingError):
    """The run's folder is not as the command needs it."""


class FolderError(TrainingError):
    """What is written would replace something else."""


class LabelError(TrainingError):
    """Labels cannot be proposed, or a person's cannot be applied."""


class ExportError(TrainingError):
    """An exported file is not good enough."""


class PromotionError(TrainingError):
    """The run is not finished, or its network is not good enough."""
