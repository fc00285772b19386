"""Mutants of the program for AWS SageMaker, and of the proof with which its `up` ends."""

PROGRAM = "infra/aws_sagemaker/__main__.py"
PROOF = "infra/waits/sagemaker_ready.py"
MOUNTED = "infra/aws_sagemaker/mounted_model.py"

MUTANTS = {
    PROGRAM: {
        "the image has OCI's manifest, which CreateModel refuses": ("oci_media_types=False", "oci_media_types=True"),
        "the image is the service's own, which cannot be run as serve": ('    target="sagemaker",\n', ""),
        "the image is built of the default engine's stage": ('    build_args={"ENGINE": engine},\n', ""),
        "the image lacks serve and train": (
            "deployment_files(extra, engine, TARGET.name, model, ",
            "deployment_files(extra, engine, model=model, ",
        ),
        "the registry's password is in clear": ("pulumi.Output.secret(login.password)", "login.password"),
        "images hold up destroy": (", force_delete=True", ""),
        "images are kept for ever": ('"countNumber": KEPT_IMAGES', '"countNumber": 1000'),
        "anyone may take the role": (
            '"Principal": {"Service": "sagemaker.amazonaws.com"}',
            '"Principal": "*"',
        ),
        "the role pulls every image of the account": (
            '"Resource": [repository.arn],',
            '"Resource": ["*"],',
        ),
        "the role makes a log that stays behind": (
            '["logs:CreateLogStream", ',
            '["logs:CreateLogGroup", "logs:CreateLogStream", ',
        ),
        "the log is kept for ever": (", retention_in_days=LOG_DAYS", ""),
        "the endpoint writes its log before there is one": ("depends_on=[log_group]", "depends_on=[]"),
        "the model is made before its role may pull": ("depends_on=[role_policy]", "depends_on=[]"),
        "the model's image is named by its tag": (
            'pulumi.Output.concat(repository.repository_url, "@", image.digest)',
            "image.tags.apply(lambda tags: tags[0])",
        ),
        "the model's image is named by tag and digest": (
            'pulumi.Output.concat(repository.repository_url, "@", image.digest)',
            "image.ref",
        ),
        "the service does not know its commit": (' | {"GIT_SHA": git_sha} | revision', " | revision"),
        "who goes back after a failure finds the model's name taken": (
            "    name_with_size,\n    execution_role_arn",
            '    "model",\n    name=name_with_size,\n    execution_role_arn',
        ),
        "who goes back after a failure finds the configuration's name taken": (
            "    name_with_size,\n    production_variants",
            '    "configuration",\n    name=name_with_size,\n    production_variants',
        ),
        "the old endpoint's model is replaced before another size is proven": (
            "    name_with_size,\n    execution_role_arn",
            "    name,\n    execution_role_arn",
        ),
        "the old endpoint's configuration is replaced before another size is proven": (
            "    name_with_size,\n    production_variants",
            "    name,\n    production_variants",
        ),
        "another number of instances is no other configuration": (
            "initial_instance_count=least",
            "initial_instance_count=1",
        ),
        "another size is an update, which AWS refuses where it is scaled": (
            '    f"endpoint-{size}",\n    name=name_with_size',
            '    "endpoint",\n    name=name',
        ),
        "the old endpoint may not write its log while another size is proven": ('f"sagemaker-{size}"', '"sagemaker"'),
        "who goes back to the old size finds its log's name taken": ('f"log-{size}"', '"log"'),
        "who goes back to the old size loses its scaling": (
            'Target(\n        f"instances-{size}"',
            'Target(\n        "instances"',
        ),
        "serverless takes one request at once": ("max_concurrency=most", "max_concurrency=1"),
        "the variant that is scaled is none": ('"/variant/", VARIANT', '"/variant/", "AllTraffic"'),
        "there may be as many instances as AWS likes": ("max_capacity=most", "max_capacity=100_000"),
        "what AWS refuses together is asked for": ("check_sagemaker(size, least, most)\n", ""),
        "scaling looks at another figure than invocations": (
            '"SageMakerVariantInvocationsPerInstance"',
            '"SageMakerVariantConcurrentRequests"',
        ),
        "another configuration is not proven": ("triggers=[configuration.name]", "triggers=[]"),
        "a store's version is not mounted": ("        model_data_source=data,\n", ""),
        "the role may not read what is mounted": ("*(read_statements(mounted) if mounted else []),", ""),
        "the image has a model beside the mounted one": ("ships_model=not mounted", "ships_model=True"),
        "the proof comes before the endpoint": ('"ENDPOINT": endpoint.name', '"ENDPOINT": name'),
        "the proof signs by other keys than the stack's": ('**({"PROFILE": profile} if profile else {})', "**{}"),
    },
    PROOF: {
        "an update that was rolled back passes": (
            'if state["EndpointConfigName"] != env["CONFIG"]:',
            'if state["EndpointConfigName"] == "":',
        ),
        "an endpoint that is no more in service passes": (
            'if state["EndpointStatus"] != "InService":',
            'if state["EndpointStatus"] == "Creating":',
        ),
        "another model's answer passes": ('return "" if version == sent else', 'return "" if version else'),
        "the proof follows redirects": ("build_opener(NoRedirect)", "build_opener()"),
        "the session's token is not signed": (
            'sent = {**headers, "X-Amz-Date": moment, **token}',
            'sent = {**headers, "X-Amz-Date": moment}',
        ),
        "keys of the environment are used for another profile": ("if not profile and all(", "if all("),
    },
    MOUNTED: {
        "a folder of S3 is mounted into serverless": (" and not serverless else None", " else None"),
        "every version is mounted": (
            "version_dir(stored.reference.name, stored.version)",
            'f"{stored.reference.name}/versions"',
        ),
        "what is mounted is no folder": ("folder)))}/\"", "folder)))}\""),
        "the role reads every model of the store": (
            'f"{stored.key_prefix}versions/*"',
            '"*"',
        ),
        "the role lists the whole bucket": (', "Condition": listed', ""),
    },
}  # fmt: skip
