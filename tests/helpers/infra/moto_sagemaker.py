"""Creates in moto what the program for SageMaker registers; see moto_cloud.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import boto3

from tests.helpers.infra.moto_cloud import Account, pairs
from tests.offline_engine.engine import ProgramResult, Resource

WHERE = {"serviceNamespace": "ServiceNamespace", "resourceId": "ResourceId", "scalableDimension": "ScalableDimension"}


class SageMakerAccount(Account):
    """An AWS account in moto with a run's resources. To be made within mock_aws, under ENVIRONMENT."""

    def __init__(self, run: ProgramResult, root: Path):
        names = ("sagemaker", "ecr", "logs", "application-autoscaling")
        self.sagemaker, self.ecr, self.logs, self.scaling = map(boto3.client, names)
        super().__init__(run, root)

    def _before(self, run: ProgramResult) -> None:
        pass  # the program finds nothing that is there already

    def _create(self, resource: Resource) -> None:
        kind = resource.type.rpartition(":")[2]
        self.real[resource.id] = CREATORS[kind](self, resource, self._resolved(resource.unwrapped_inputs))

    def role_by_arn(self, resource: Resource, inputs: dict) -> str:
        name = self.role(resource, inputs)
        self.real[resource.outputs["arn"]] = self.iam.get_role(RoleName=name)["Role"]["Arn"]
        return name

    def repository(self, _: Resource, inputs: dict) -> str:
        self.ecr.create_repository(repositoryName=inputs["name"], tags=pairs(inputs["tags"]))
        return inputs["name"]

    def lifecycle(self, _: Resource, inputs: dict) -> str:
        self.ecr.put_lifecycle_policy(repositoryName=inputs["repository"], lifecyclePolicyText=inputs["policy"])
        return inputs["repository"]

    def log_group(self, _: Resource, inputs: dict) -> str:
        self.logs.create_log_group(logGroupName=inputs["name"], tags=inputs["tags"])
        self.logs.put_retention_policy(logGroupName=inputs["name"], retentionInDays=int(inputs["retentionInDays"]))
        return inputs["name"]

    def model(self, resource: Resource, inputs: dict) -> str:
        container = inputs["primaryContainer"]
        self.sagemaker.create_model(
            ModelName=resource.id,
            ExecutionRoleArn=inputs["executionRoleArn"],
            PrimaryContainer={"Image": container["image"], "Environment": container["environment"]},
            Tags=pairs(inputs["tags"]),
        )
        return resource.id

    def configuration(self, resource: Resource, inputs: dict) -> str:
        (variant,) = inputs["productionVariants"]
        if serverless := variant.get("serverlessConfig"):
            capacity = {
                "ServerlessConfig": {
                    "MemorySizeInMB": int(serverless["memorySizeInMb"]),
                    "MaxConcurrency": int(serverless["maxConcurrency"]),
                }
            }
        else:
            capacity = {
                "InstanceType": variant["instanceType"], "InitialInstanceCount": int(variant["initialInstanceCount"])
            }  # fmt: skip
        named = {"VariantName": variant["variantName"], "ModelName": variant["modelName"]}
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=resource.id, ProductionVariants=[named | capacity], Tags=pairs(inputs["tags"])
        )
        return resource.id

    def endpoint(self, _: Resource, inputs: dict) -> str:
        self.sagemaker.create_endpoint(
            EndpointName=inputs["name"], EndpointConfigName=inputs["endpointConfigName"], Tags=pairs(inputs["tags"])
        )
        return inputs["name"]

    def scaling_target(self, resource: Resource, inputs: dict) -> str:
        where = {real: inputs[key] for key, real in WHERE.items()}
        limits = {"MinCapacity": int(inputs["minCapacity"]), "MaxCapacity": int(inputs["maxCapacity"])}
        self.scaling.register_scalable_target(**where, **limits)
        return resource.id

    def scaling_policy(self, resource: Resource, inputs: dict) -> str:
        tracking = inputs["targetTrackingScalingPolicyConfiguration"]
        metric = tracking["predefinedMetricSpecification"]["predefinedMetricType"]
        self.scaling.put_scaling_policy(
            PolicyName=inputs["name"],
            **{real: inputs[key] for key, real in WHERE.items()},
            PolicyType=inputs["policyType"],
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": tracking["targetValue"],
                "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
                "ScaleOutCooldown": int(tracking["scaleOutCooldown"]),
                "ScaleInCooldown": int(tracking["scaleInCooldown"]),
            },
        )
        return resource.id


CREATORS: dict[str, Callable[[SageMakerAccount, Resource, dict], str]] = {
    "Endpoint": SageMakerAccount.endpoint,
    "EndpointConfiguration": SageMakerAccount.configuration,
    "LifecyclePolicy": SageMakerAccount.lifecycle,
    "LogGroup": SageMakerAccount.log_group,
    "Model": SageMakerAccount.model,
    "Policy": SageMakerAccount.scaling_policy,
    "Repository": SageMakerAccount.repository,
    "Role": SageMakerAccount.role_by_arn,
    "RolePolicy": SageMakerAccount.role_policy,
    "Target": SageMakerAccount.scaling_target,
}
