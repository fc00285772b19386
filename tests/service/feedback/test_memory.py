"""What is remembered of answers, and for how long."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import AlreadyJudged, AnswerForgotten, AnswerUnknown, UnknownInput, UnknownLabel
from service.feedback.memory import Answer, AnswerMemory

CLASSES = ("cat", "dog", "ship")


def remembering(*answers: Answer, most: int = 10, **options) -> AnswerMemory:
    """A memory with these answers to the requests 1, 2 and so on."""
    memory = AnswerMemory(most, **options)
    for ordinal, answer in enumerate(answers, start=1):
        memory.remember(ordinal, answer)
    return memory


def answer(*class_ids: int, images: tuple[bytes, ...] = ()) -> Answer:
    return Answer("v1", CLASSES, class_ids, images)


def test_a_true_class_tells_right_from_wrong():
    memory = remembering(answer(0), answer(1))
    right, wrong = memory.judge(1, None, "cat"), memory.judge(2, None, "ship")
    assert (right.is_right, right.label, right.predicted) == (True, "cat", "cat")
    assert (wrong.is_right, wrong.label, wrong.predicted, wrong.version) == (False, "ship", "dog", "v1")


def test_the_same_twice_is_new_once_and_the_contrary_refused():
    memory = remembering(answer(0))
    assert [memory.judge(1, None, "dog").is_new for _ in range(3)] == [True, False, False]
    with pytest.raises(AlreadyJudged, match=r"prediction 1 was judged before, as 'dog'; the first judgement counts"):
        memory.judge(1, None, "cat")


def test_each_input_of_a_batch_is_judged_by_its_index():
    memory = remembering(answer(0, 1, 2))
    assert [memory.judge(1, index, "dog").is_right for index in range(3)] == [False, True, False]
    with pytest.raises(UnknownInput, match=r"answer 1 has 3 predictions; say which by index, 0 to 2"):
        memory.judge(1, None, "dog")
    with pytest.raises(UnknownInput, match=r"index is 3; answer 1 has the predictions 0 to 2"):
        memory.judge(1, 3, "dog")
    assert remembering(answer(1)).judge(1, 0, "dog").is_right


def test_an_unknown_class_is_refused_with_the_names():
    with pytest.raises(UnknownLabel, match="'Cat' is no class of the model that answered; use one of: cat, dog, ship"):
        remembering(answer(0)).judge(1, None, "Cat")


def test_ten_thousand_predictions_are_remembered_and_no_more():
    memory = remembering(*(answer(0) for _ in range(10_001)), most=10_000)
    assert len(memory) == 10_000
    with pytest.raises(AnswerForgotten, match="prediction 1 is forgotten; this instance remembers its last 10000"):
        memory.judge(1, None, "cat")
    assert memory.judge(2, None, "cat").is_right and memory.judge(10_001, None, "cat").is_right
    with pytest.raises(AnswerUnknown, match="there is no prediction 10002"):
        memory.judge(10_002, None, "cat")


def test_a_batch_counts_as_many_as_it_has():
    memory = remembering(answer(*[0] * 6), answer(*[0] * 4), answer(0))
    assert len(memory) == 5
    with pytest.raises(AnswerForgotten):
        memory.judge(1, 0, "cat")
    assert memory.judge(2, 0, "cat").is_new


def test_a_memory_of_none_forgets_at_once():
    with pytest.raises(AnswerForgotten):
        remembering(answer(0), most=0).judge(1, None, "cat")


def test_the_default_memory_takes_a_few_mib_however_long_it_runs():
    tracemalloc.start()
    memory = AnswerMemory(10_000)
    for ordinal in range(1, 30_001):
        memory.remember(ordinal, Answer("v1", CLASSES, (ordinal % 3,)))
        memory.judge(ordinal, None, "cat")
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(memory) == 10_000
    assert taken < 8 * 2**20, f"{taken / 2**20:.1f} MiB"


def test_the_oldest_images_go_first_and_their_answers_stay():
    memory = remembering(*(answer(0, images=(bytes([n]) * 40,)) for n in range(3)), max_image_bytes=100)
    assert memory.image_bytes == 80
    assert [memory.judge(ordinal, None, "cat").image for ordinal in (1, 2, 3)] == [None, b"\1" * 40, b"\2" * 40]


def test_images_of_a_forgotten_answer_are_forgotten():
    memory = remembering(answer(0, images=(b"one",)), answer(0, images=(b"other",)), most=1)
    assert memory.image_bytes == len(b"other")


def test_an_image_over_the_limit_alone_is_not_held():
    memory = remembering(answer(0, images=(b"12345",)), max_image_bytes=4)
    assert memory.image_bytes == 0 and memory.judge(1, None, "cat").image is None


def test_of_many_at_once_one_judgement_is_new():
    memory = remembering(answer(0))
    with ThreadPoolExecutor(16) as pool:
        judged = list(pool.map(lambda _: memory.judge(1, None, "cat").is_new, range(64)))
    assert sorted(judged) == [False] * 63 + [True]


def test_of_contrary_judgements_at_once_one_class_stays():
    memory = remembering(answer(0))

    def judge(number: int) -> str:
        try:
            return memory.judge(1, None, CLASSES[number % 3]).label
        except AlreadyJudged:
            return "refused"

    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(judge, range(96)))
    (label,) = set(said) - {"refused"}
    assert said.count(label) == 32
