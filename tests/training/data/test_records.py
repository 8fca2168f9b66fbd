"""Records of videos: the closed list of answers, names and texts that are refused."""

from __future__ import annotations

from pathlib import Path

from hbi_training.data.records import Question, VideoRecord, common_answers


def test_the_closed_list_of_answers() -> None:
    def record(*answers: str) -> VideoRecord:
        return VideoRecord(Path("a"), ("a",), questions=tuple(Question("what?", answer, "what") for answer in answers))

    records = [record("red", "two"), record("red", "blue"), record("yes")]
    assert common_answers(records, 10) == ("red", "blue", "two", "yes")
    assert common_answers(records, 2) == ("red", "blue")
