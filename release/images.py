"""The images, or rows, of each stage: the golden set of beta, the test set of gamma, part of it for a canary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from eval.dataset.golden import golden_dir
from eval.dataset.image_set import ImageSet
from eval.dataset.images import load_images
from infra.models import DEFAULT_MODEL, model_names
from release.errors import ReleaseError
from release.plan import BETA, PROD, Plan
from service.model import Bundle

GOLDEN = "golden"
SMOKE_IMAGES = 100  # of the test set, for a model without a golden set


def images_of(plan: Plan, stage: str, bundle: Bundle, notify: Callable[[str], None]) -> ImageSet:
    """What a stage sends. Raises ImagesError, or ReleaseError where there is nothing to send.

    Without reference predictions: the harness would compute those of models/, which is not what is deployed.
    """
    known = plan.model in model_names()
    has_golden = known and golden_dir(plan.model).is_dir()
    selection, limit = plan.images or GOLDEN, plan.limit
    if stage == BETA:
        selection, limit = (GOLDEN, None) if has_golden else (selection, SMOKE_IMAGES)
    elif stage == PROD:
        limit = min(plan.canary, plan.limit or plan.canary)
    if selection == GOLDEN and not has_golden:
        raise ReleaseError(f"{plan.model} has no golden set in eval/golden: give its test set with --images DIR")
    if selection in (GOLDEN, "cifar10"):
        image_set = load_images(selection, limit, plan.seed, notify, model=plan.model if known else DEFAULT_MODEL)
    else:
        image_set = load_images(
            selection, limit, plan.seed, notify, own_classes=True, class_names=bundle.classes,
            model=plan.model if known else DEFAULT_MODEL,
        )  # fmt: skip
    if image_set.classes != bundle.classes:
        raise ReleaseError(f"{image_set.source} has other classes than {plan.model}@{plan.version}: give its test set")
    return replace(image_set, model=None, reference_probabilities=None)
