"""Every reader on a tiny folder in its published format, and on folders that are not quite that."""

from __future__ import annotations

import json
import logging
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_infer.errors import DataError
from hbi_training.data.formats import READERS, load_records
from hbi_training.data.records import Phrase, Question, VideoRecord

LSMDC_LINE = "{0}\t00.00.10.000\t00.00.12.500\t00.00.10.000\t00.00.12.500\t{1}\n"

Files = dict[str, Any]


def write(folder: Path, files: Files) -> Path:
    """Write files: text as it is, bytes as they are, anything else as JSON; None makes an empty video."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes) or content is None:
            path.write_bytes(content or b"")
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def sentence(video_id: str, caption: str, number: int) -> dict[str, Any]:
    return {"sen_id": number, "video_id": video_id, "caption": caption}


MSRVTT_SENTENCES = [
    sentence("video1", "a man sings", 0),
    sentence("video0", "cars race", 1),
    sentence("video1", "someone is singing ", 2),
    sentence("video7", "not in the split", 3),
]
MSRVTT_VIDEO = {"id": 0, "video_id": "video0", "category": 9, "url": "u", "start time": 1.5, "end time": 9.0}
MSRVTT_VIDEOS = [
    {**MSRVTT_VIDEO, "split": "train"},
    {**MSRVTT_VIDEO, "video_id": "video1", "split": "validate"},
    {**MSRVTT_VIDEO, "video_id": "video7", "split": "test"},
]
MSRVTT: Files = {
    "MSRVTT_data.json": {"info": {}, "videos": MSRVTT_VIDEOS, "sentences": MSRVTT_SENTENCES},
    "MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo1\n",
    "MSRVTT_JSFUSION_test.csv": (
        "key,vid_key,video_id,sentence\n"
        "ret0,msr9770,video9770,a person is connecting something to system\n"
        'ret1,msr9771,video9771,"a little girl, on the beach"\n'
    ),
    "videos/all/video0.mp4": None,
    "videos/all/video1.mp4": None,
    "videos/test/video9770.mp4": None,
    "videos/test/video9771.webm": None,
}
MSVD: Files = {
    "AllVideoDescriptions.txt": (
        "# MSVD descriptions\n\n"
        "-4wsuPCjDBc_5_15 a squirrel is eating a peanut\n"
        "mv89psg6zh4_33_46 A bird is bathing in a sink.\n"
        "-4wsuPCjDBc_5_15 a chipmunk is eating\n"
    ),
    "train_list.txt": "mv89psg6zh4_33_46\n-4wsuPCjDBc_5_15\n",
    "YouTubeClips/-4wsuPCjDBc_5_15.avi": None,
    "YouTubeClips/mv89psg6zh4_33_46.avi": None,
}
ACTIVITYNET: Files = {
    "train.json": {
        "v_QOlSCBRmfWY": {
            "duration": 82.73,
            "timestamps": [[0.83, 19.86], [17.37, 60.81]],
            "sentences": ["A young woman is seen.", " The girl dances."],
        },
        "v_ehGHCYKzyZ8": {"duration": 61, "timestamps": [[0, 61]], "sentences": ["The video starts."]},
    },
    "val_1.json": {"v_uqiMw7tQ1Cc": {"duration": 55.15, "timestamps": [[0.28, 55.15]], "sentences": ["A weight."]}},
    "videos/v_QOlSCBRmfWY.mp4": None,
    "videos/ehGHCYKzyZ8.mkv": None,
    "videos/v_uqiMw7tQ1Cc.mp4": None,
}
A_CLIP = {"video": "a.mp4", "captions": ["a"]}
A_PHRASE = {"caption": 0, "text": "a", "start": 0, "kind": "noun", "start_seconds": 0, "end_seconds": 2}
DIDEMO_NAMES = ("54322086@N00_2408598493_274c77d26a.avi", "12090392@N02_13482799053_87ef417396.mov")


def didemo_entry(number: int, description: str) -> dict[str, Any]:
    times = [[0, 0], [0, 0], [1, 1], [0, 0]]
    video = DIDEMO_NAMES[number]
    return {"annotation_id": number, "description": description, "video": video, "times": times, "num_segments": 6}


DIDEMO: Files = {
    "val_data.json": [didemo_entry(0, "a baby falls"), didemo_entry(1, "a car"), didemo_entry(0, "the baby laughs")],
    f"videos/{DIDEMO_NAMES[0]}": None,
    "videos/12090392@N02_13482799053_87ef417396.mp4": None,
}
CLIPS = ("0001_American_Beauty_00.00.51.926-00.00.54.129", "1012_Unbreakable_00.05.16.065-00.05.21.941")
LSMDC: Files = {
    "LSMDC16_annos_training.csv": (
        LSMDC_LINE.format(CLIPS[0], 'SOMEONE lies on a "bed".')
        + LSMDC_LINE.format(CLIPS[1], "He turns.").replace("\n", "\r\n")
        + LSMDC_LINE.format(CLIPS[0], "He's awake.")
    ),
    f"0001_American_Beauty/{CLIPS[0]}.avi": None,
    f"1012_Unbreakable/{CLIPS[1]}.avi": None,
}


def lines(*entries: Any) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


MANIFEST: Files = {
    "test.jsonl": lines(
        {"video": "videos/a.mp4", "captions": ["a red circle moves left", " "]},
        {
            "video": "videos/deep/b.mkv",
            "captions": ["one", "two"],
            "end_seconds": 4.5,
            "hard_negatives": ["three"],
            "questions": [{"question": "which colour?", "answer": "red"}],
            "scene": {"its": "own"},
        },
    )
    + "\n",
    "videos/a.mp4": None,
    "videos/deep/b.mkv": None,
}


def qa_entry(number: int, video: int, question: str, answer: str) -> dict[str, Any]:
    return {"answer": answer, "category_id": 14, "id": number, "question": question, "video_id": video}


MSRVTT_QA: Files = {
    "train_qa.json": [
        qa_entry(0, 1, "what is a man singing?", "song"),
        qa_entry(1, 0, "who drives a car?", "man"),
        qa_entry(2, 1, "how many people sing?", "one"),
    ],
    "test_qa.json": [qa_entry(0, 7010, "where does a woman sit?", "couch")],
    "videos/all/video0.mp4": None,
    "videos/all/video1.mp4": None,
    "videos/video7010.webm": None,
}
MSVD_QA: Files = {
    "test_qa.json": [
        {"answer": "peanut", "id": 0, "question": "what is a squirrel eating?", "video_id": 1},
        {"answer": "bird", "id": 1, "question": "who bathes in a sink?", "video_id": 1301},
        {"answer": "someone", "id": 2, "question": "who eats?", "video_id": 1},
    ],
    "youtube_mapping.txt": "-4wsuPCjDBc_5_15 vid1\nmv89psg6zh4_33_46 vid1301\n0lh_UWF9ZP4_62_69 vid2\n",
    "YouTubeClips/-4wsuPCjDBc_5_15.avi": None,
    "video/vid1301.mp4": None,
}

PUBLISHED = [
    (
        "msrvtt",
        "train",
        MSRVTT,
        [
            VideoRecord(Path("videos/all/video0.mp4"), ("cars race",)),
            VideoRecord(Path("videos/all/video1.mp4"), ("a man sings", "someone is singing")),
        ],
    ),
    (
        "msrvtt",
        "test",
        MSRVTT,
        [
            VideoRecord(Path("videos/test/video9770.mp4"), ("a person is connecting something to system",)),
            VideoRecord(Path("videos/test/video9771.webm"), ("a little girl, on the beach",)),
        ],
    ),
    (
        "msvd",
        "train",
        MSVD,
        [
            VideoRecord(Path("YouTubeClips/mv89psg6zh4_33_46.avi"), ("A bird is bathing in a sink.",)),
            VideoRecord(
                Path("YouTubeClips/-4wsuPCjDBc_5_15.avi"), ("a squirrel is eating a peanut", "a chipmunk is eating")
            ),
        ],
    ),
    (
        "activitynet",
        "train",
        ACTIVITYNET,
        [
            VideoRecord(Path("videos/v_QOlSCBRmfWY.mp4"), ("A young woman is seen. The girl dances.",), 83.0),
            VideoRecord(Path("videos/ehGHCYKzyZ8.mkv"), ("The video starts.",), 61.0),
        ],
    ),
    ("activitynet", "test", ACTIVITYNET, [VideoRecord(Path("videos/v_uqiMw7tQ1Cc.mp4"), ("A weight.",), 56.0)]),
    (
        "didemo",
        "val",
        DIDEMO,
        [
            VideoRecord(Path("videos", DIDEMO_NAMES[0]), ("a baby falls the baby laughs",), 31.0),
            VideoRecord(Path("videos/12090392@N02_13482799053_87ef417396.mp4"), ("a car",), 31.0),
        ],
    ),
    (
        "lsmdc",
        "train",
        LSMDC,
        [
            VideoRecord(Path("0001_American_Beauty", f"{CLIPS[0]}.avi"), ('SOMEONE lies on a "bed".', "He's awake.")),
            VideoRecord(Path("1012_Unbreakable", f"{CLIPS[1]}.avi"), ("He turns.",)),
        ],
    ),
    (
        "msrvtt_caption",
        "val",
        MSRVTT,
        [VideoRecord(Path("videos/all/video1.mp4"), ("a man sings", "someone is singing"))],
    ),
    (
        "msrvtt_qa",
        "train",
        MSRVTT_QA,
        [
            VideoRecord(
                Path("videos/all/video1.mp4"),
                (),
                questions=(
                    Question("what is a man singing?", "song", "what"),
                    Question("how many people sing?", "one", "how"),
                ),
            ),
            VideoRecord(Path("videos/all/video0.mp4"), (), questions=(Question("who drives a car?", "man", "who"),)),
        ],
    ),
    (
        "msrvtt_qa",
        "test",
        MSRVTT_QA,
        [
            VideoRecord(
                Path("videos/video7010.webm"), (), questions=(Question("where does a woman sit?", "couch", "where"),)
            )
        ],
    ),
    (
        "msvd_qa",
        "test",
        MSVD_QA,
        [
            VideoRecord(
                Path("YouTubeClips/-4wsuPCjDBc_5_15.avi"),
                (),
                questions=(
                    Question("what is a squirrel eating?", "peanut", "what"),
                    Question("who eats?", "someone", "who"),
                ),
            ),
            VideoRecord(Path("video/vid1301.mp4"), (), questions=(Question("who bathes in a sink?", "bird", "who"),)),
        ],
    ),
    (
        "manifest",
        "test",
        MANIFEST,
        [
            VideoRecord(Path("videos/a.mp4"), ("a red circle moves left",)),
            VideoRecord(
                Path("videos/deep/b.mkv"), ("one", "two"), 4.5, ("three",), (Question("which colour?", "red", "which"),)
            ),
        ],
    ),
]


@pytest.mark.parametrize(("name", "split", "files", "expected"), PUBLISHED)
def test_published_format(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, split: str, files: Files, expected: list[VideoRecord]
) -> None:
    records = load_records(name, write(tmp_path, files), split)
    assert [replace(record, video=record.video.relative_to(tmp_path)) for record in records] == expected
    assert not caplog.records


def test_phrases_stand_where_they_do_in_the_stripped_caption(tmp_path: Path) -> None:
    entry = {
        "video": "a.mp4",
        "captions": [" a cat sits ", " ", "it runs"],
        "phrases": [{**A_PHRASE, "text": "sits", "start": 7}, {**A_PHRASE, "caption": 2, "text": "runs", "start": 3}],
    }
    write(tmp_path, {"test.jsonl": lines(entry), "a.mp4": ""})
    (record,) = load_records("manifest", tmp_path, "test")
    assert record.captions == ("a cat sits", "it runs")
    assert record.phrases == (
        Phrase("a cat sits", 6, "sits", "noun", 0.0, 2.0),
        Phrase("it runs", 3, "runs", "noun", 0.0, 2.0),
    )


def test_every_reader_is_tested() -> None:
    assert {name for name, *_ in PUBLISHED} == READERS.keys()


def test_msrvtt_of_the_2016_challenge(tmp_path: Path) -> None:
    files = {**MSRVTT, "videos/video7.avi": None}
    files["train_val_videodatainfo.json"] = {"videos": MSRVTT_VIDEOS[:2], "sentences": MSRVTT_SENTENCES[:2]}
    files["test_videodatainfo.json"] = {"videos": MSRVTT_VIDEOS[2:], "sentences": MSRVTT_SENTENCES[2:]}
    del files["MSRVTT_data.json"]
    write(tmp_path, files)
    assert load_records("msrvtt", tmp_path, "train")[1].captions == ("a man sings", "someone is singing")
    for split, name in (("train", "video0.mp4"), ("val", "video1.mp4"), ("test", "video7.avi")):
        assert [record.video.name for record in load_records("msrvtt_caption", tmp_path, split)] == [name]


def test_msvd_captions_as_json(tmp_path: Path) -> None:
    files = {**MSVD, "captions.json": {"mv89psg6zh4_33_46": [["a", "bird"]], "-4wsuPCjDBc_5_15": ["a squirrel"]}}
    del files["AllVideoDescriptions.txt"]
    records = load_records("msvd", write(tmp_path, files), "train")
    assert [record.captions for record in records] == [("a bird",), ("a squirrel",)]


def test_msvd_never_reads_a_pickle(tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    # What unpickling would run: open(trap, "w").
    pickled = f"cbuiltins\nopen\n(V{trap}\nVw\ntR.".encode()
    files = {**MSVD, "raw-captions.pkl": pickled}
    del files["AllVideoDescriptions.txt"]
    with pytest.raises(DataError, match=r"raw-captions\.pkl is a pickle, .* AllVideoDescriptions.txt"):
        load_records("msvd", write(tmp_path, files), "train")
    assert not trap.exists()


def test_videos_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, {"notes/val_data.json": [didemo_entry(0, "a baby")], f"films/{DIDEMO_NAMES[0]}": None})
    (record,) = load_records("didemo", tmp_path / "notes", "val", videos=tmp_path / "films")
    assert record.video == tmp_path / "films" / DIDEMO_NAMES[0]
    write(tmp_path, {"notes/val.jsonl": lines({"video": DIDEMO_NAMES[0], "captions": ["a baby"]})})
    assert load_records("manifest", tmp_path / "notes", "val", videos=tmp_path / "films") == [
        VideoRecord(record.video, ("a baby",))
    ]


def spellings(folder: Path) -> list[str]:
    """Paths of one video in a folder, which also has the video by other names."""
    write(folder, {"videos/a.mp4": b"a video", "sub/b.mp4": b"another"})
    (folder / "videos" / "linked.mp4").symlink_to(folder / "videos" / "a.mp4")
    (folder / "videos" / "hard.mp4").hardlink_to(folder / "videos" / "a.mp4")
    (folder / "link").symlink_to(folder / "videos")
    inside = ["videos/a.mp4", "./videos//a.mp4", "sub/../videos/a.mp4", "no/such/../../videos/./a.mp4"]
    return [*inside, str(folder / "videos/a.mp4"), "videos/linked.mp4", "videos/hard.mp4", "link/a.mp4"]


def test_lines_of_one_video_are_one_clip_however_they_spell_its_path(tmp_path: Path) -> None:
    paths = spellings(tmp_path)
    questions = [{"question": "who?", "answer": str(number)} for number in range(len(paths))]
    told = [
        {"video": path, "captions": [f"caption {n}"], "hard_negatives": [f"no {n}"], "questions": questions[n : n + 1]}
        for n, path in enumerate(paths)
    ]
    other = {"video": "sub/b.mp4", "captions": ["b"]}
    write(tmp_path, {"test.jsonl": lines(told[0], other, *told[1:])})
    first, second = load_records("manifest", tmp_path, "test")
    assert first.video == tmp_path / "videos" / "a.mp4"
    assert first.captions == tuple(f"caption {n}" for n in range(len(paths)))
    assert first.hard_negatives == tuple(f"no {n}" for n in range(len(paths)))
    assert [question.answer for question in first.questions] == [str(n) for n in range(len(paths))]
    assert second == VideoRecord(tmp_path / "sub/b.mp4", ("b",))


def test_one_line_for_each_caption_is_the_same_as_one_for_each_video(tmp_path: Path) -> None:
    captions = {f"{video}.mp4": [f"{video} {n}" for n in range(3)] for video in "abc"}
    write(tmp_path, dict.fromkeys(captions))
    by_video = [{"video": video, "captions": told} for video, told in captions.items()]
    by_caption = [{"video": video, "captions": [told[n]]} for n in range(3) for video, told in captions.items()]
    by_caption.append(by_caption[0])  # a line that says nothing new
    write(tmp_path, {"train.jsonl": lines(*by_video), "test.jsonl": lines(*by_caption)})
    assert load_records("manifest", tmp_path, "train") == load_records("manifest", tmp_path, "test")


def test_other_times_of_a_video_are_other_clips(tmp_path: Path) -> None:
    times: list[dict[str, Any]] = [
        {},
        {"start_seconds": 2, "end_seconds": 4},
        {"end_seconds": 4.0},
        {"start_seconds": 2.0},
        {"start_seconds": 0, "end_seconds": None},
        {"start_seconds": 2.0, "end_seconds": 4.0},
    ]
    told = [{"video": "a.mp4", "captions": [str(n)], **part} for n, part in enumerate(times)]
    records = load_records("manifest", write(tmp_path, {"test.jsonl": lines(*told), "a.mp4": None}), "test")
    assert [(record.captions, record.start_seconds, record.end_seconds) for record in records] == [
        (("0", "4"), 0.0, None),
        (("1", "5"), 2.0, 4.0),
        (("2",), 0.0, 4.0),
        (("3",), 2.0, None),
    ]


def test_ids_of_one_file_are_one_video_in_every_format(tmp_path: Path) -> None:
    entries = {f"{name}X": {"duration": 9.5, "sentences": [name or "bare"]} for name in ("v_", "")}
    (record,) = load_records("activitynet", write(tmp_path, {"val_1.json": entries, "X.mp4": None}), "val")
    assert (record.captions, record.end_seconds) == (("v_", "bare"), 10.0)
    # A link of the same name is no second video.
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "X.mp4").symlink_to(tmp_path / "X.mp4")
    assert load_records("activitynet", tmp_path, "val")[0].captions == record.captions


LINES = [
    pytest.param("\n", id="line feeds"),
    pytest.param("\r\n", id="carriage returns"),
    pytest.param("\n\n \t\n", id="blank lines"),
]


@pytest.mark.parametrize("end", LINES)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte order mark"])
def test_lines_end_at_line_feeds_alone(tmp_path: Path, end: str, mark: bytes) -> None:
    captions = [f"one{separator}line" for separator in "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"]
    entries = [{"video": f"{n}.mp4", "captions": [caption]} for n, caption in enumerate(captions)]
    text = end.join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    write(tmp_path, {"test.jsonl": mark + text.encode(), **{f"{n}.mp4": None for n in range(len(captions))}})
    assert [record.captions for record in load_records("manifest", tmp_path, "test")] == [(text,) for text in captions]


def test_a_carriage_return_within_a_line_does_not_end_it(tmp_path: Path) -> None:
    files = {"AllVideoDescriptions.txt": "a one\rline\r\n", "test_list.txt": "a\r\n", "a.avi": None}
    (record,) = load_records("msvd", write(tmp_path, files), "test")
    assert record.captions == ("one\rline",)


def test_questions_of_a_manifest(tmp_path: Path) -> None:
    asked = [
        {"question": "what colour is it?", "answer": "red", "type": "colour"},
        {"question": " How many? ", "answer": "2"},
    ]
    line = {"video": "a.mp4", "captions": ["a"], "questions": asked}
    write(tmp_path, {"val.jsonl": lines(line), "a.mp4": None})
    (record,) = load_records("manifest", tmp_path, "val")
    assert record.questions == (("what colour is it?", "red", "colour"), ("How many?", "2", "how"))


def test_a_manifest_line_with_questions_needs_no_captions(tmp_path: Path) -> None:
    asked = [{"question": "what colour is it?", "answer": "red"}]
    clips = [{"video": "a.mp4", "questions": asked}, {"video": "a.mp4", "captions": [], "questions": asked}]
    write(tmp_path, {"val.jsonl": lines(*clips), "a.mp4": None})
    for record in load_records("manifest", tmp_path, "val"):
        assert record.captions == ()
        assert record.questions == (("what colour is it?", "red", "what"),)


def test_msvd_qa_finds_videos_by_either_name(tmp_path: Path) -> None:
    files = {**MSVD_QA, "YouTubeClips/vid1.avi": None}
    del files["YouTubeClips/-4wsuPCjDBc_5_15.avi"]
    first, _ = load_records("msvd_qa", write(tmp_path, files), "test")
    assert first.video.name == "vid1.avi"


@pytest.mark.parametrize(
    ("name", "files", "gone", "message"),
    [
        ("msrvtt_qa", MSRVTT_QA, "videos/all/video0.mp4", "msrvtt_qa train: 1 of 2 videos .*, for example video0"),
        ("msrvtt", MSRVTT, "videos/all/video0.mp4", "msrvtt train: 1 of 2 videos are not in .*, for example video0"),
        ("lsmdc", LSMDC, f"1012_Unbreakable/{CLIPS[1]}.avi", "lsmdc train: 1 of 2 videos"),
    ],
)
def test_missing_videos_are_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, files: Files, gone: str, message: str
) -> None:
    write(tmp_path, files)
    (tmp_path / gone).unlink()
    with caplog.at_level(logging.WARNING):
        assert len(load_records(name, tmp_path, "train")) == 1
    (record,) = caplog.records
    assert re.search(message, record.getMessage())


@pytest.mark.parametrize(("name", "split", "files"), [published[:3] for published in PUBLISHED])
def test_no_videos_at_all(tmp_path: Path, name: str, split: str, files: Files) -> None:
    write(tmp_path, {path: content for path, content in files.items() if content is not None})
    with pytest.raises(DataError, match=rf"{name} .*none of its \d videos is in .*; say where the videos are"):
        load_records(name, tmp_path, split)


def test_two_files_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, {**MSRVTT, "compressed/video0.mp4": None})
    with pytest.raises(DataError, match=r"line 2: both .*compressed/video0.mp4 and .*all/video0.mp4 have its name"):
        load_records("msrvtt", tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("msr-vtt", "train", "unknown data set 'msr-vtt'; did you mean msrvtt?"),
        ("DiDeMo", "train", "did you mean didemo?"),
        ("msvd", "validation", "unknown split 'validation'; did you mean val?"),
    ],
)
def test_unknown_names(tmp_path: Path, name: str, split: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        load_records(name, tmp_path, split)
    assert message in str(error.value)


@pytest.mark.parametrize("name", READERS)
def test_empty_and_missing_folders(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        load_records(name, tmp_path / "none", "train")
    with pytest.raises(DataError, match="is missing; the data set needs it"):
        load_records(name, tmp_path, "train")
    with pytest.raises(DataError, match=r"is missing|there is no folder"):
        load_records(name, tmp_path, "train", videos=tmp_path / "none")


TRAVERSAL = "../../etc/passwd"
A_QUESTION = {"video_id": 7, "question": "what?", "answer": "that"}

HOSTILE = [
    # Paths where a name belongs.
    ("msrvtt", {**MSRVTT, "MSRVTT_JSFUSION_test.csv": f"video_id,sentence\n{TRAVERSAL},a\n"}, "line 2: .* no name may"),
    ("msvd", {**MSVD, "test_list.txt": f"{TRAVERSAL}\n"}, "test_list.txt, line 1: .* is not the name of a video"),
    ("activitynet", {"val_1.json": {TRAVERSAL: {"duration": 1, "sentences": ["a"]}}}, "is not the name of a video"),
    ("didemo", {"test_data.json": [{"video": TRAVERSAL, "description": "a"}]}, "entry 0: .* is not the name"),
    ("didemo", {"test_data.json": [{"video": "..", "description": "a"}]}, "is not the name"),
    ("lsmdc", {"LSMDC16_challenge_1000_publictect.csv": LSMDC_LINE.format("a\\b", "a")}, "line 1: .* is not the name"),
    ("manifest", {"test.jsonl": lines({"video": TRAVERSAL, "captions": ["a"]})}, "line 1: .* is not a path inside"),
    ("manifest", {"test.jsonl": lines({"video": "/etc/passwd", "captions": ["a"]})}, "is not a path inside"),
    ("manifest", {"test.jsonl": lines({"video": "a\0b", "captions": ["a"]})}, "is not a path inside"),
    ("manifest", {"test.jsonl": lines({"video": "", "captions": ["a"]})}, "is not a path inside"),
    # Columns and keys that are missing.
    ("msrvtt", {"MSRVTT_JSFUSION_test.csv": "video,sentence\nvideo1,a\n"}, "line 1: no column video_id; it has video,"),
    ("msrvtt", {"MSRVTT_JSFUSION_test.csv": "video_id,sentence\nvideo1\n"}, "line 2: no sentence; .* too few fields"),
    ("msrvtt", {"MSRVTT_JSFUSION_test.csv": ""}, "no column video_id"),
    ("msvd", {**MSVD, "test_list.txt": "nobody_1_2\n"}, "line 1: 'nobody_1_2' has no captions"),
    ("activitynet", {"val_1.json": {"v_a": {"sentences": ["a"]}}}, "'v_a': no 'duration'"),
    ("activitynet", {"val_1.json": {"v_a": {"duration": -1, "sentences": ["a"]}}}, "at least 0"),
    ("activitynet", {"val_1.json": '{"v_a": {"duration": NaN, "sentences": ["a"]}}'}, "must be a number of seconds"),
    ("activitynet", {"val_1.json": {"v_a": {"duration": 1, "sentences": "a"}}}, "'sentences' is 'a'; .* a list"),
    ("activitynet", {"val_1.json": {"v_a": 3}}, "no 'sentences'"),
    ("didemo", {"test_data.json": [{"video": "a.avi"}]}, "entry 0: no 'description'"),
    ("didemo", {"test_data.json": [{"video": 3, "description": "a"}]}, "'video' is 3; it must be a text"),
    ("lsmdc", {"LSMDC16_challenge_1000_publictect.csv": "a\tb\n"}, "line 1: 2 fields between tabs; there must be 6"),
    ("manifest", {"test.jsonl": lines({"captions": ["a"]})}, "line 1: no 'video'"),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "questions": "what?"})}, "'questions' is 'what.'; it must be"),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "questions": [{"question": "a?"}]})}, "line 1: no 'answer'"),
    (
        "manifest",
        {"test.jsonl": lines({**A_CLIP, "questions": [{"question": " ", "answer": "b"}]})},
        "line 1: a question or its answer is blank",
    ),
    ("manifest", {"test.jsonl": lines({"video": "a.mp4"})}, "line 1: no 'captions'"),
    ("manifest", {"test.jsonl": lines({"video": "a", "captions": ["a"], "end_second": 1})}, "mean end_seconds?"),
    ("manifest", {"test.jsonl": lines({"video": "a", "captions": ["a"], "end_seconds": True})}, "number of seconds"),
    ("manifest", {"test.jsonl": lines({"video": "a" * 5000, "captions": ["a"]})}, "none of its 1 videos"),
    ("manifest", {"test.jsonl": lines({"video": "\ud800", "captions": ["a"]})}, "none of its 1 videos"),
    *(
        ("manifest", {"test.jsonl": lines({**A_CLIP, key: value})}, f"line 1: '{key}' is .*; it must be a number of se")
        for key in ("start_seconds", "end_seconds")
        for value in ("2", -1, math.nan, math.inf, 10**400, [2], False)
    ),
    (
        "manifest",
        {"test.jsonl": lines({**A_CLIP, "start_seconds": 4, "end_seconds": 2})},
        "end_seconds is 2; .*, 4",
    ),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "start_seconds": 2, "end_seconds": 2})}, "greater than start_seconds"),
    (
        "manifest",
        {"test.jsonl": lines(A_CLIP, {**A_CLIP, "captoins": []})},
        "line 2: unknown key 'captoins'; did ",
    ),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "phrases": [{**A_PHRASE, "start": 3}]})}, "phrase 1: .* character 3"),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "phrases": [{**A_PHRASE, "caption": 9}]})}, "of caption 9"),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "phrases": [{**A_PHRASE, "end_seconds": 0}]})}, "and a later end"),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "phrases": [{"caption": 0}]})}, "phrase 1: no 'start'"),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "phrases": "verbs"})}, "'phrases' is"),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "id": 7})}, "unknown key 'id'; Known: video, captions, start_seconds"),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "start": 7})}, "unknown key 'start'.* start_seconds"),
    (
        "manifest",
        {"test.jsonl": '{"video": "a.mp4", "captions": ["a"], "captions": ["b"]}'},
        "line 1: the key 'captions' stands twice",
    ),
    ("activitynet", {"val_1.json": '{"a": {}, "a": {}}'}, "val_1.json: the key 'a' stands twice"),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "captions": ["\ud800"]})}, "half a character"),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "video": "a/../../b.mp4"})}, "is not a path inside"),
    ("manifest", {"test.jsonl": lines({**A_CLIP, "video": "a/.."})}, "is not a path inside"),
    (
        "manifest",
        {"test.jsonl": lines({"video": "a", "captions": ["a"], "end_seconds": 0})},
        "end_seconds is 0; it must be greater",
    ),
    ("msrvtt_caption", {"MSRVTT_data.json": {"sentences": []}}, "no 'videos'"),
    ("msrvtt_caption", {"MSRVTT_data.json": {"sentences": [], "videos": [MSRVTT_VIDEO]}}, "video 0: no 'split'"),
    (
        "msrvtt_caption",
        {"MSRVTT_data.json": {"sentences": [], "videos": [{"video_id": "video7", "split": "test"}]}},
        "video 0: all captions are blank, or there are none",
    ),
    # Questions.
    ("msrvtt_qa", {"test_qa.json": {}}, "test_qa.json does not hold a list; is it the published file?"),
    ("msrvtt_qa", {"test_qa.json": [[]]}, "entry 0: no 'video_id'"),
    ("msrvtt_qa", {"test_qa.json": [{**A_QUESTION, "video_id": "video7"}]}, "'video7'; it must be a whole number"),
    ("msrvtt_qa", {"test_qa.json": [{**A_QUESTION, "video_id": True}]}, "is True; it must be a whole number"),
    ("msrvtt_qa", {"test_qa.json": [A_QUESTION, {"video_id": 7, "answer": "b"}]}, "entry 1: no 'question'"),
    ("msrvtt_qa", {"test_qa.json": [{**A_QUESTION, "answer": 3}]}, "entry 0: 'answer' is 3; it must be a text"),
    ("msrvtt_qa", {"test_qa.json": [{**A_QUESTION, "answer": " "}]}, "entry 0: a question or its answer is blank"),
    ("msrvtt_qa", {"test_qa.json": []}, "the annotations name no videos"),
    ("msvd_qa", {"test_qa.json": [A_QUESTION]}, "youtube_mapping.txt is missing; the data set needs it"),
    ("msvd_qa", {"test_qa.json": [A_QUESTION], "youtube_mapping.txt": "a vid8"}, "entry 0: .*txt has no line for vid7"),
    ("msvd_qa", {"test_qa.json": [A_QUESTION], "youtube_mapping.txt": "a\n"}, "line 1: 1 words; there must be 2"),
    ("msvd_qa", {"test_qa.json": [A_QUESTION], "youtube_mapping.txt": "../a vid7"}, "line 1: .* is not the name of a"),
    # Captions that say nothing.
    (
        "msrvtt",
        {"MSRVTT_JSFUSION_test.csv": 'video_id,sentence\nvideo1," "\n'},
        "line 2: all captions are blank, or there are none",
    ),
    (
        "msvd",
        {"AllVideoDescriptions.txt": "a_1_2\n", "test_list.txt": "a_1_2\n"},
        "all captions are blank, or there are none",
    ),
    (
        "activitynet",
        {"val_1.json": {"v_a": {"duration": 1, "sentences": []}}},
        "all captions are blank, or there are none",
    ),
    (
        "didemo",
        {"test_data.json": [{"video": "a.avi", "description": " "}]},
        "all captions are blank, or there are none",
    ),
    (
        "lsmdc",
        {"LSMDC16_challenge_1000_publictect.csv": LSMDC_LINE.format("a", "")},
        "all captions are blank, or there are none",
    ),
    ("manifest", {"test.jsonl": lines({"video": "a", "captions": []})}, "all captions are blank, or there are none"),
    ("manifest", {"test.jsonl": lines({"video": "a", "captions": [3]})}, "a caption is 3; it must be a text"),
    # Files that are something else.
    ("activitynet", {"val_1.json": "{"}, "val_1.json: not JSON: .* line 1"),
    ("activitynet", {"val_1.json": "[]"}, "does not hold an object"),
    ("didemo", {"test_data.json": "[" * 100_000}, "not JSON"),
    ("didemo", {"test_data.json": []}, "the annotations name no videos"),
    ("didemo", {"test_data.json": b"\xff\xfe"}, r"is not UTF-8 \(byte 0\)"),
    ("manifest", {"test.jsonl": lines({"video": "a", "captions": ["a"]}) + "nonsense"}, "test.jsonl, line 2: not JSON"),
    ("manifest", {"test.jsonl": "\n"}, "the annotations name no videos"),
    ("manifest", {"test.jsonl/file": "a directory"}, "cannot read .*test.jsonl: Is a directory"),
]


@pytest.mark.parametrize(("name", "files", "message"), HOSTILE)
def test_hostile_folders(tmp_path: Path, name: str, files: Files, message: str) -> None:
    write(tmp_path, files)
    with pytest.raises(DataError, match=message):
        load_records(name, tmp_path, "test")


def test_msrvtt_video_without_sentences(tmp_path: Path) -> None:
    write(tmp_path, {**MSRVTT, "MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo3\n"})
    with pytest.raises(DataError, match=r"MSRVTT_train.9k.csv, line 3: 'video3' has no sentence"):
        load_records("msrvtt", tmp_path, "train")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["video", "captions", "sentences", "duration", "description", "video_id", "question", "v_a"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=200)
@given(JSON_VALUES, st.sampled_from(["activitynet", "didemo", "manifest", "msrvtt_caption", "msrvtt_qa"]))
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: Any, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_json"
    folder.mkdir(exist_ok=True)
    text = json.dumps(content)
    names = ("val_1.json", "test_data.json", "test.jsonl", "test_qa.json", "MSRVTT_data.json")
    write(folder, dict.fromkeys(names, text))
    with pytest.raises(DataError):  # there are no videos, so even a right one is refused
        load_records(name, folder, "test")
