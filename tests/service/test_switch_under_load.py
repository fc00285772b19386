"""Twenty switches of the real service's model under load: what does not depend on the machine's speed."""

import pytest

from scripts.benchmarks.model_switch import lines, measure

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SWITCHES, REQUESTS, RATE_RPS = 20, 2000, 100.0
MEMORY_BACK_MIB = 5


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return measure(tmp_path_factory.mktemp("switch"), "onnx", SWITCHES, REQUESTS, RATE_RPS)


def test_twenty_switches_lose_no_request_of_two_thousand(result, say):
    say("; ".join(lines(result)))
    assert result.switches == SWITCHES
    assert [answer.status for answer in result.switching] == [200] * REQUESTS
    assert [answer.status for answer in result.steady] == [200] * REQUESTS


def test_each_answer_is_of_the_version_in_its_header(result):
    answers = result.switching
    assert [answer.header for answer in answers] == [answer.body_version for answer in answers]
    assert len({answer.header for answer in answers}) == 2


def test_memory_and_threads_are_back_after_twenty_switches(result):
    (before_mib, after_mib), (threads_before, threads_after) = result.memory_mib, result.threads
    assert after_mib - before_mib < MEMORY_BACK_MIB
    assert threads_after < threads_before + SWITCHES / 2  # the server may have started some for requests
