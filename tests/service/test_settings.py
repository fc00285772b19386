from dataclasses import fields
from ipaddress import ip_address

import pytest

from service.errors import SettingsError
from service.settings import MIN_TOKEN_CHARACTERS, ROOT, Settings
from service.store_layout import parse_reference
from tests.helpers.bundles import write_bundle
from tests.helpers.model_stores import add_version, point

TOKEN = "a" * MIN_TOKEN_CHARACTERS


def test_an_empty_environment_gives_the_defaults():
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.web_threads) == ("0.0.0.0", 8080, 288)
    assert (settings.engine, settings.api_token) == ("torch", None)
    assert settings.model_dir == ROOT / "models" / "resnet18-cifar10"


@pytest.mark.parametrize(
    ("env", "threads"),
    [
        ({"MAX_QUEUE": "600"}, 632),
        ({"MAX_QUEUE": "240", "BATCH_MAX": "1"}, 288),
        ({"MAX_QUEUE": "100000"}, 10_000),
        ({"MAX_QUEUE": "600", "WEB_THREADS": "80"}, 80),
    ],
)
def test_threads_suffice_to_fill_the_queue_and_a_pass(env, threads):
    assert Settings.from_env(env).web_threads == threads


def test_every_setting_is_read(tmp_path):
    env = {
        "HOST": "127.0.0.1",
        "PORT": "9000",
        "WEB_THREADS": "7",
        "KEEP_ALIVE_S": "9",
        "ENGINE": "torch",
        "DEVICE": "cuda",
        "MODEL_DIR": "models/other",
        "MAX_QUEUE": "3",
        "BATCH_MAX": "4",
        "BATCH_WAIT_MS": "2.5",
        "API_TOKEN": TOKEN,
        "GIT_SHA": "abc",
        "DEPLOYMENT": "my own cluster",
        "DYNO": "web.1",
        "PROTECT_STATUS": "1",
        "ALLOWED_ORIGINS": "https://a.example, http://localhost:3000",
        "FEEDBACK_MEMORY": "5",
        "KEEP_IMAGES": str(tmp_path / "some" / "kept"),
        "KEEP_IMAGES_MB": "6",
    }
    assert Settings.from_env(env) == Settings(
        *("127.0.0.1", 9000, 7, 9, "torch", "cuda", ROOT / "models" / "other", 3, 4, 2.5, TOKEN, "abc"),
        *("my own cluster", True),
        allowed_origins=("https://a.example", "http://localhost:3000"),
        feedback_memory=5,
        keep_images=tmp_path / "some" / "kept",
        keep_images_mb=6,
    )
    assert (tmp_path / "some" / "kept").is_dir()


def test_a_store_takes_the_place_of_model_dir(tmp_path):
    root = tmp_path / "store"
    version = add_version(root, "tiny", write_bundle(tmp_path / "bundle", ["dark", "bright"]))
    point(root, "tiny", "prod", version)
    env = {"MODEL_STORE": str(root), "MODEL": "tiny@prod", "MODEL_POLL_S": "0.5", "MANAGE_TOKEN": TOKEN}
    settings = Settings.from_env(env | {"MODEL_DIR": "nowhere"})
    assert settings.stored and settings.stored.to_json() == {
        "name": "tiny", "alias": "prod", "version": version, "number": 1
    }  # fmt: skip
    assert settings.model_dir == root / "tiny" / "versions" / version
    assert (settings.model_store, settings.model) == (root, parse_reference("tiny@prod"))
    assert (settings.model_poll_s, settings.manage_token) == (0.5, TOKEN)
    assert (settings.engine, settings.any_engine) == ("onnx", True)
    assert not Settings.from_env(env | {"ENGINE": "onnx"}).any_engine


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"MODEL_STORE": "."}, "MODEL_STORE is set without MODEL; set MODEL to NAME@ALIAS .*, or unset MODEL_STORE"),
        ({"MODEL_STORE": ".", "MODEL": "tiny"}, "MODEL: 'tiny' names no version"),
        ({"MODEL_STORE": ".", "MODEL": "../../etc@prod"}, "MODEL: '../../etc' is no name of a model"),
        (
            {"MODEL_STORE": "s3://bucket", "MODEL": "tiny@prod"},
            "MODEL_STORE: .* holds no model; set MODEL_STORE to one",
        ),
        ({"MODEL_POLL_S": "-1"}, "MODEL_POLL_S is '-1'; use seconds from 0 to 86400"),
        ({"MANAGE_TOKEN": "short"}, "MANAGE_TOKEN has 5 characters and can be guessed"),
        ({"MANAGE_TOKEN": TOKEN, "API_TOKEN": TOKEN}, "MANAGE_TOKEN is API_TOKEN: whoever may predict could change"),
        ({"MANAGE_TOKEN": "two words of a token"}, "MANAGE_TOKEN does not fit a header"),
    ],
)
def test_a_bad_setting_of_the_store_is_said(env, message):
    with pytest.raises(SettingsError, match=message):
        Settings.from_env(env)


def test_model_without_a_store_is_left_to_make():
    assert Settings.from_env({"MODEL": "iris"}) == Settings()


def test_an_absolute_model_dir_stays_absolute(tmp_path):
    assert Settings.from_env({"MODEL_DIR": str(tmp_path)}).model_dir == tmp_path


def test_a_model_without_torch_runs_with_onnx_unless_told(tmp_path):
    env = {"MODEL_DIR": str(write_bundle(tmp_path, ["dark", "bright"]))}
    assert Settings.from_env(env).engine == "onnx"
    assert Settings.from_env(env | {"ENGINE": "torch"}).engine == "torch"


def test_an_empty_value_counts_as_unset():
    assert Settings.from_env({field.name.upper(): "" for field in fields(Settings)}) == Settings()


@pytest.mark.parametrize(
    ("value", "address"),
    [("0.0.0.0", "0.0.0.0"), ("::", "::"), ("[::]", "::"), ("::1", "::1"), ("127.0.0.1", "127.0.0.1")],
)
def test_every_family_of_addresses_is_taken(value, address):
    assert Settings.from_env({"HOST": value}).host == address


def test_a_host_name_is_looked_up():
    assert ip_address(Settings.from_env({"HOST": "localhost"}).host).is_loopback


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", "[::]:8080"),
        ("HOST", "no-such-name.invalid"),
        ("HOST", "1.2.3"),
        ("HOST", "two words"),
        ("PORT", "http"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("WEB_THREADS", "0"),
        ("KEEP_ALIVE_S", "0"),
        ("ENGINE", "tensorflow"),
        ("MAX_QUEUE", "0"),
        ("MAX_QUEUE", "1.5"),
        ("BATCH_MAX", "-1"),
        ("BATCH_MAX", "²"),
        ("BATCH_WAIT_MS", "soon"),
        ("BATCH_WAIT_MS", "-1"),
        ("BATCH_WAIT_MS", "nan"),
        ("PROTECT_STATUS", "yes"),
        ("FEEDBACK_MEMORY", "1000001"),
        ("KEEP_IMAGES_MB", "0"),
        ("DEPLOYMENT", "two\nlines"),
        ("DEPLOYMENT", "x" * 81),
    ],
)
def test_a_bad_value_is_named_with_what_would_be_right(name, value):
    with pytest.raises(SettingsError, match=r"use (an IP address|a whole number|milliseconds|one)") as caught:
        Settings.from_env({name: value})
    assert str(caught.value).startswith(f"{name} is {value!r}")


@pytest.mark.parametrize(
    ("env", "deployment"),
    [
        ({}, None),
        ({"DYNO": "web.1"}, "Heroku"),
        ({"K_SERVICE": "cloudtrial"}, "Google Cloud Run"),
        ({"K_SERVICE": "cloudtrial", "FUNCTION_TARGET": "classify"}, "Google Cloud Functions"),
        ({"FUNCTION_TARGET": "classify"}, None),
    ],
    ids=str,
)
def test_a_platform_is_known_by_its_own_variables(env, deployment):
    assert Settings.from_env(env).deployment == deployment


def test_token_invalid_in_a_header_is_refused_and_not_shown():
    with pytest.raises(SettingsError, match="API_TOKEN") as caught:
        Settings.from_env({"API_TOKEN": "two words"})
    assert "two words" not in str(caught.value)


def test_a_token_that_can_be_guessed_is_refused_and_not_shown():
    message = "API_TOKEN has 15 characters and can be guessed; use at least 16"
    with pytest.raises(SettingsError, match=message) as caught:
        Settings.from_env({"API_TOKEN": TOKEN[1:]})
    assert TOKEN[1:] not in str(caught.value)


def test_protecting_status_needs_a_token():
    with pytest.raises(SettingsError, match="PROTECT_STATUS is '1' without a token; set API_TOKEN"):
        Settings.from_env({"PROTECT_STATUS": "1"})


@pytest.mark.parametrize("origin", ["*", "http://127.0.0.1:8000", "https://a-b.c.example", "http://[::1]:9"])
def test_an_origin_is_taken_as_browsers_send_it(origin):
    assert Settings.from_env({"ALLOWED_ORIGINS": origin}).allowed_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        *("a.example", "https://a.example/", "https://a.example/page", "HTTPS://a.example", "https://A.example"),
        *("null", "https://*.example", "https://a.example:443", "http://a.example:80", "ftp://a.example", "https://"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(origin):
    says = (
        f"ALLOWED_ORIGINS has '{origin}'; use origins as browsers send them, such as https://example.org, or * for all"
    )
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"ALLOWED_ORIGINS": f"https://b.example,{origin}"})
    assert str(caught.value) == says
