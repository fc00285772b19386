"""A budget of Google's Cloud Billing: mails when the project costs more in a month than was meant to be spent.

It stops nothing. The mails go to the administrators and users of the billing account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from infra.common import StackConfig
from infra.errors import ConfigError

API = "billingbudgets"
BILLING_ACCOUNT = r"[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}"
BILLING_ACCOUNT_HINT = "a billing account's ID, 0123AB-4567CD-89EF01: gcloud billing projects describe YOUR-PROJECT"
MAX_USD = 100_000
# A part of the amount, and what is compared with it: what is spent, or what the month will have cost at this rate.
THRESHOLDS = ((0.5, "CURRENT_SPEND"), (0.9, "CURRENT_SPEND"), (1.0, "CURRENT_SPEND"), (1.0, "FORECASTED_SPEND"))


@dataclass(frozen=True)
class BudgetSettings:
    """What a month may cost, and whose money it is."""

    usd: int
    billing_account: str


def read_budget_settings(config: StackConfig) -> BudgetSettings | None:
    """The budget that is asked for; None where none is. Raises ConfigError for one setting without the other."""
    usd = config.integer("budgetUsd", 0, 1, MAX_USD)
    account = config.optional("billingAccount", BILLING_ACCOUNT, BILLING_ACCOUNT_HINT)
    if account is None and not usd:
        return None
    if account is None:
        raise ConfigError(f"cloudtrial:budgetUsd needs cloudtrial:billingAccount, {BILLING_ACCOUNT_HINT}")
    if not usd:
        raise ConfigError("cloudtrial:billingAccount needs cloudtrial:budgetUsd, the US dollars of a month")
    return BudgetSettings(usd, account)


def create_budget(name: str, settings: BudgetSettings, project: str, apis: Sequence[pulumi.Resource]) -> None:
    """Make the budget, of the whole project: not all that a stack costs carries its labels."""
    # Of the caller's own credentials the API wants to know which project asks; all else works without.
    own = pulumi.Config("gcp")  # a provider that is made here does not inherit these
    provider = gcp.Provider(
        "billing", project=project, billing_project=project, user_project_override=True,
        credentials=own.get_secret("credentials"), access_token=own.get_secret("accessToken"),
        impersonate_service_account=own.get("impersonateServiceAccount"),
    )  # fmt: skip
    # By number: Google answers with that, and the ID would be a change for ever. It is known once the APIs are on.
    number = gcp.organizations.get_project_output(
        project_id=project, opts=pulumi.InvokeOutputOptions(depends_on=apis)
    ).number
    gcp.billing.Budget(
        "budget",
        billing_account=settings.billing_account,
        display_name=name,
        budget_filter=gcp.billing.BudgetBudgetFilterArgs(
            projects=[pulumi.Output.concat("projects/", number)], calendar_period="MONTH"
        ),
        amount=gcp.billing.BudgetAmountArgs(
            specified_amount=gcp.billing.BudgetAmountSpecifiedAmountArgs(currency_code="USD", units=str(settings.usd))
        ),
        threshold_rules=[
            gcp.billing.BudgetThresholdRuleArgs(threshold_percent=part, spend_basis=basis) for part, basis in THRESHOLDS
        ],
        opts=pulumi.ResourceOptions(provider=provider),
    )
