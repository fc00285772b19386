"""What is left of a stack on SageMaker: the endpoint and what it is made of, its images, its role, its log."""

from __future__ import annotations

import re
from collections.abc import Iterator

from botocore.exceptions import ClientError

from eval.cost.billing import HOURS_PER_MONTH
from infra.leftovers.aws import AwsSearch, items, search
from infra.leftovers.search import Leftover, SearchResult, StackLocation, iso_date, monthly_cost
from infra.naming import endpoint_name, resource_name
from infra.targets import SAGEMAKER_SIZES

PART = "endpoint"
BY_THE_HOUR = "billed by the hour"
DIGITS = re.compile(r"[0-9a-f]{7}")  # at the end of the names that Pulumi gives


def find_leftovers(location: StackLocation, parts: tuple[str, ...]) -> SearchResult:
    """Everything of the stack that is left. Raises ProbeError when AWS accepts no credentials."""
    aws = AwsSearch(location, parts)
    aws.check_login()
    own = SageMakerSearch(aws, resource_name(PART, location.stack))
    return search(
        {
            "autoscaling targets": own.scalable_targets,
            "endpoints": own.endpoints,
            "endpoint configurations": own.configurations,
            "models": own.models,
            "image repositories": own.repositories,
            "IAM roles": aws.roles,
            "log groups": aws.log_groups,
            "other tagged resources": aws.other_tagged_resources,
        },
        location.profile,
    )


class SageMakerSearch:
    """Probes by name, which the program gives to all that it makes."""

    def __init__(self, aws: AwsSearch, name: str) -> None:
        self.aws, self.name, self.region = aws, name, f" --region {aws.location.region}"
        self.endpoint_names = {endpoint_name(aws.location.stack, size) for size in SAGEMAKER_SIZES}

    def endpoints(self) -> Iterator[Leftover]:
        client = self.aws.client("sagemaker")
        for each in items(client, "list_endpoints", "Endpoints[]", NameContains=self.name):
            if (name := each["EndpointName"]) in self.endpoint_names:
                described = client.describe_endpoint(EndpointName=name)
                command = f"aws sagemaker delete-endpoint --endpoint-name {name}{self.region}"
                yield Leftover("endpoint", name, command, iso_date(each.get("CreationTime")), self._cost(described))

    def configurations(self) -> Iterator[Leftover]:
        found = items(
            self.aws.client("sagemaker"), "list_endpoint_configs", "EndpointConfigs[]", NameContains=self.name
        )
        for each in found:
            if self._is_own(name := each["EndpointConfigName"]):
                command = f"aws sagemaker delete-endpoint-config --endpoint-config-name {name}{self.region}"
                yield Leftover("endpoint configuration", name, command, iso_date(each.get("CreationTime")))

    def models(self) -> Iterator[Leftover]:
        for each in items(self.aws.client("sagemaker"), "list_models", "Models[]", NameContains=self.name):
            if self._is_own(name := each["ModelName"]):
                command = f"aws sagemaker delete-model --model-name {name}{self.region}"
                yield Leftover("model", name, command, iso_date(each.get("CreationTime")))

    def repositories(self) -> Iterator[Leftover]:
        for each in items(self.aws.client("ecr"), "describe_repositories", "repositories[]"):
            if (name := each["repositoryName"]) == self.name:
                command = f"aws ecr delete-repository --force --repository-name {name}{self.region}"
                yield Leftover("image repository", name, command, iso_date(each.get("createdAt")), "billed by GB")

    def scalable_targets(self) -> Iterator[Leftover]:
        client = self.aws.client("application-autoscaling")
        found = items(client, "describe_scalable_targets", "ScalableTargets[]", ServiceNamespace="sagemaker")
        for each in found:
            if (resource := each["ResourceId"]).split("/")[1] in self.endpoint_names:
                command = (
                    "aws application-autoscaling deregister-scalable-target --service-namespace sagemaker"
                    f" --resource-id {resource} --scalable-dimension {each['ScalableDimension']}{self.region}"
                )
                yield Leftover("autoscaling target", resource, command, iso_date(each.get("CreationTime")))

    def _is_own(self, name: str) -> bool:
        """A model's or configuration's name: its endpoint's, and Pulumi's digits."""
        of_endpoint, _, digits = name.rpartition("-")
        return of_endpoint in self.endpoint_names and DIGITS.fullmatch(digits) is not None

    def _cost(self, endpoint: dict) -> str:
        """Of the instances that run now; their size is the configuration's, which may be gone before its endpoint."""
        client = self.aws.client("sagemaker")
        running = {each["VariantName"]: each for each in endpoint.get("ProductionVariants", ())}
        if any("CurrentServerlessConfig" in variant for variant in running.values()):
            return ""
        try:
            configuration = client.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            return BY_THE_HOUR
        (variant, *_) = configuration["ProductionVariants"]
        if "InstanceType" not in variant:
            return ""  # serverless
        count = running.get(variant["VariantName"], {}).get("CurrentInstanceCount") or variant["InitialInstanceCount"]
        price_id = f"aws_sagemaker_{variant['InstanceType'].replace('.', '_')}_hour"
        return monthly_cost(price_id, count * HOURS_PER_MONTH, BY_THE_HOUR)
