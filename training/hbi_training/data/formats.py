"""Readers of published video-text data sets and of a plain manifest, which all return lists of `VideoRecord`.

| name           | annotation files in the folder                     | a record                                     |
|----------------|----------------------------------------------------|----------------------------------------------|
| msrvtt         | MSRVTT_train.9k.csv, MSRVTT_JSFUSION_test.csv,     | a video, 20 captions (train) or one (val and |
|                | MSRVTT_data.json (or train_val_videodatainfo.json  | test, both the 1,000 pairs of JSFusion)      |
|                | and test_videodatainfo.json)                       |                                              |
| msrvtt_caption | MSRVTT_data.json (or the same two)                 | a video, 20 captions: the split of the       |
|                |                                                    | challenge, in which captioning is measured   |
| msvd           | train_list.txt, val_list.txt, test_list.txt,       | a video, some 40 captions                    |
|                | AllVideoDescriptions.txt (or captions.json)        |                                              |
| activitynet    | train.json, val_1.json (val and test)              | a video, its sentences joined to one caption |
| didemo         | train_data.json, val_data.json, test_data.json     | its first 31 s, its descriptions joined      |
| lsmdc          | LSMDC16_annos_training.csv, LSMDC16_annos_val.csv, | a clip (a file of its own), its captions     |
|                | LSMDC16_challenge_1000_publictect.csv              |                                              |
| msrvtt_qa      | train_qa.json, val_qa.json, test_qa.json           | a video, its questions and no captions       |
| msvd_qa        | the same, youtube_mapping.txt                      | the same                                     |
| manifest       | train.jsonl, val.jsonl, test.jsonl                 | a video, or a part of it: its lines          |

Videos may lie anywhere below the folder. A manifest has one JSON object a line, its video relative to the folder:

    {"video": "videos/a.mp4", "captions": ["a red circle moves left"], "start_seconds": 1, "end_seconds": 4.5,
     "hard_negatives": ["a red circle moves right"],
     "questions": [{"question": "what colour is the circle?", "answer": "red", "type": "colour"}]}

A line needs captions or questions. Either time may be left out; they are those that a player shows. No other keys are
known but "scene", which may hold anything and is not read. Lines of one video and the same times are one clip with the
texts of all, and so are entries of the other formats whose videos are one file.
"""

from __future__ import annotations

import difflib
import math
import posixpath
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from hbi_infer.errors import DataError
from hbi_training.data.annotation_files import (
    check_unicode,
    field,
    parse_json,
    read_csv,
    read_json,
    read_lines,
    seconds,
)
from hbi_training.data.records import (
    Annotation,
    Phrase,
    Question,
    VideoRecord,
    checked_name,
    checked_texts,
    find_records,
    is_file,
    without_missing,
)

SPLITS = ("train", "val", "test")


def load_records(name: str, folder: Path | str, split: str, *, videos: Path | str | None = None) -> list[VideoRecord]:
    """Reads one split of a data set, in the order of its annotation files.

    Args:
        name: Name of the data set in the table above.
        folder: Folder of the annotation files.
        split: Name of the split: train, val or test.
        videos: Folder of the videos, if not `folder`. They are found by name at any depth.

    Raises:
        DataError: The data set or split is unknown, an annotation file is missing or malformed (the message names file
            and line), or no video is found. If only some are missing, they are left out and a warning is logged.
    """
    folder = Path(folder)
    videos = None if videos is None else Path(videos)
    for value, known, what in ((name, tuple(READERS), "data set"), (split, SPLITS, "split")):
        if value not in known:
            nearest = difflib.get_close_matches(value.lower(), known, n=1, cutoff=0.0)[0]
            raise DataError(f"unknown {what} {value!r}; did you mean {nearest}? Known: {', '.join(known)}")
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; {name} needs the folder of its annotation files")
    return READERS[name](folder, split, videos or folder)


def msrvtt_records(folder: Path, split: str, videos: Path) -> list[VideoRecord]:
    """Reads MSR-VTT: the usual 9,000 training videos; 1,000 pairs of one video and one caption for val and for test."""
    captions: dict[str, list[str]] = {}
    if split == "train":
        rows = list(read_csv(folder / "MSRVTT_train.9k.csv", ["video_id"]))
        captions = _msrvtt_sentences(folder)
        without = [(where, row["video_id"]) for where, row in rows if row["video_id"] not in captions]
        if without:
            raise DataError(f"{without[0][0]}: {without[0][1]!r} has no sentence in the annotations")
    else:
        rows = list(read_csv(folder / "MSRVTT_JSFUSION_test.csv", ["video_id", "sentence"]))
        for _, row in rows:
            captions.setdefault(row["video_id"], []).append(row["sentence"])
    places = {row["video_id"]: where for where, row in reversed(rows)}
    ids = dict.fromkeys(row["video_id"] for _, row in rows)
    return find_records([_annotation(i, captions[i], places[i]) for i in ids], videos, f"msrvtt {split}")


def msrvtt_caption_records(folder: Path, split: str, videos: Path) -> list[VideoRecord]:
    """Reads MSR-VTT in the split of captioning results: 6,513 training, 497 validation and 2,990 test videos.

    The split is that of the 2016 challenge; the annotations assign each video to a part.
    """
    captions = _msrvtt_sentences(folder)
    name = "validate" if split == "val" else split
    annotations = []
    for path in _msrvtt_files(folder):
        for number, entry in enumerate(field(read_json(path, dict), "videos", list, str(path))):
            where = f"{path}, video {number}"
            video_id = field(entry, "video_id", str, where)
            if field(entry, "split", str, where) == name:
                annotations.append(_annotation(video_id, captions.get(video_id, ()), where))
    return find_records(annotations, videos, f"msrvtt_caption {split}")


def _msrvtt_files(folder: Path) -> list[Path]:
    """Returns the one file in common use, or the two of the 2016 challenge."""
    if not (folder / "MSRVTT_data.json").exists() and (folder / "train_val_videodatainfo.json").exists():
        return [folder / "train_val_videodatainfo.json", folder / "test_videodatainfo.json"]
    return [folder / "MSRVTT_data.json"]


def _msrvtt_sentences(folder: Path) -> dict[str, list[str]]:
    """Reads the captions of each video id."""
    captions: dict[str, list[str]] = {}
    for path in _msrvtt_files(folder):
        for number, entry in enumerate(field(read_json(path, dict), "sentences", list, str(path))):
            where = f"{path}, sentence {number}"
            captions.setdefault(field(entry, "video_id", str, where), []).append(field(entry, "caption", str, where))
    return captions


def msvd_records(folder: Path, split: str, videos: Path) -> list[VideoRecord]:
    """Reads MSVD (YouTube2Text): 1,200 training, 100 validation and 670 test videos."""
    captions = _msvd_captions(folder)
    annotations = {}
    for where, line in read_lines(folder / f"{split}_list.txt"):
        video_id = checked_name(line.strip(), where)
        if video_id not in captions:
            raise DataError(f"{where}: {video_id!r} has no captions")
        annotations[video_id] = _annotation(video_id, captions[video_id], where)
    return find_records(list(annotations.values()), videos, f"msvd {split}")


def _msvd_captions(folder: Path) -> dict[str, list[str]]:
    """Reads the captions of each video id from the published text file or JSON, never from the pickle in common use."""
    text_file, json_file, pickled = (
        folder / name for name in ("AllVideoDescriptions.txt", "captions.json", "raw-captions.pkl")
    )
    captions: dict[str, list[str]] = {}
    if text_file.exists() or not (json_file.exists() or pickled.exists()):
        for _, line in read_lines(text_file):
            if not line.startswith("#"):
                video_id, *caption = line.split(maxsplit=1)
                captions.setdefault(video_id, []).extend(caption)
    elif json_file.exists():
        # A caption is a text, or a list of words as in the pickle.
        for video_id in (content := read_json(json_file, dict)):
            texts = field(content, video_id, list, str(json_file))
            captions[video_id] = [" ".join(map(str, text)) if isinstance(text, list) else text for text in texts]
    else:
        raise DataError(
            f"{pickled} is a pickle, which can run any code, so it is not read; put the published "
            "AllVideoDescriptions.txt beside it (a line for each caption: video id, blank, caption) "
            'or captions.json ({"video id": ["caption", ...]})'
        )
    return captions


def activitynet_records(folder: Path, split: str, videos: Path) -> list[VideoRecord]:
    """Reads ActivityNet Captions as paragraphs: all sentences of a video are one caption of the whole video."""
    path = folder / ("train.json" if split == "train" else "val_1.json")
    annotations = []
    for video_id, entry in read_json(path, dict).items():
        where = f"{path}, {video_id!r:.80}"
        checked_name(video_id, where)
        paragraph = " ".join(checked_texts(field(entry, "sentences", list, where), where))
        duration = seconds(entry, "duration", where)
        if not duration:
            raise DataError(f"{where}: no 'duration' greater than 0")
        # Files are named by the whole id or by the part after "v_".
        names = (video_id, video_id.removeprefix("v_"))
        annotations.append(Annotation(where, names, (paragraph,), float(math.ceil(duration))))
    return find_records(annotations, videos, f"activitynet {split}")


def didemo_records(folder: Path, split: str, videos: Path) -> list[VideoRecord]:
    """Reads DiDeMo as paragraphs: all descriptions of a video are one caption; annotators saw only 30 s of it."""
    path = folder / f"{split}_data.json"
    descriptions: dict[str, list[str]] = {}
    for number, entry in enumerate(read_json(path, list)):
        where = f"{path}, entry {number}"
        video = checked_name(field(entry, "video", str, where), where)
        descriptions.setdefault(video, []).append(field(entry, "description", str, where))
    annotations = []
    for video, texts in descriptions.items():
        where = f"{path}, {video!r}"
        # A compressed copy of a video may have another suffix than the annotated name.
        names = (video, Path(video).stem)
        annotations.append(Annotation(where, names, (" ".join(checked_texts(texts, where)),), 31.0))
    return find_records(annotations, videos, f"didemo {split}")


def lsmdc_records(folder: Path, split: str, videos: Path) -> list[VideoRecord]:
    """Reads LSMDC 2016: 101,079 training, 7,408 validation and 1,000 test movie clips; an id may have several lines."""
    names = {
        "train": "LSMDC16_annos_training.csv",
        "val": "LSMDC16_annos_val.csv",
        "test": "LSMDC16_challenge_1000_publictect.csv",
    }
    captions: dict[str, list[str]] = {}
    places: dict[str, str] = {}
    for where, line in read_lines(folder / names[split]):
        fields = line.split("\t")
        if len(fields) != 6:
            raise DataError(f"{where}: {len(fields)} fields between tabs; there must be 6, the sentence last")
        clip_id = checked_name(fields[0], where)
        captions.setdefault(clip_id, []).append(fields[5])
        places.setdefault(clip_id, where)
    annotations = [_annotation(clip_id, texts, places[clip_id]) for clip_id, texts in captions.items()]
    return find_records(annotations, videos, f"lsmdc {split}")


def msrvtt_qa_records(folder: Path, split: str, videos: Path) -> list[VideoRecord]:
    """Reads MSRVTT-QA (Xu et al. 2017): 158,581 training questions about 6,513 videos, 12,278 and 72,821 others.

    Validation has 497 videos, the test 2,990. The files are those of the authors' release: one list per split, of
    `{"answer", "category_id", "id", "question", "video_id"}`. The video_id is the number in MSR-VTT's names,
    video7010.mp4.
    """
    asked = _video_questions(folder / f"{split}_qa.json")
    annotations = [
        Annotation(where, (f"video{number}",), (), questions=questions) for number, (where, questions) in asked.items()
    ]
    return find_records(annotations, videos, f"msrvtt_qa {split}")


def msvd_qa_records(folder: Path, split: str, videos: Path) -> list[VideoRecord]:
    """Reads MSVD-QA (Xu et al. 2017): 30,933 training questions about 1,200 videos, 6,415 and 13,157 others.

    Validation has 250 videos, the test 520. The format is that of MSRVTT-QA, but the video_id 1 stands for the "vid1"
    of youtube_mapping.txt, whose lines name the clip of MSVD ("-4wsuPCjDBc_5_15 vid1"). Videos may have either name.
    """
    path = folder / "youtube_mapping.txt"
    asked = _video_questions(folder / f"{split}_qa.json")
    clips: dict[str, str] = {}
    for where, line in read_lines(path):
        names = line.split()
        if len(names) != 2:
            raise DataError(
                f"{where}: {len(names)} words; there must be 2, the name of a clip and its number, such as vid1"
            )
        clips[names[1]] = checked_name(names[0], where)
    annotations = []
    for number, (where, questions) in asked.items():
        if (video := f"vid{number}") not in clips:
            raise DataError(f"{where}: {path} has no line for {video}")
        annotations.append(Annotation(where, (clips[video], video), (), questions=questions))
    return find_records(annotations, videos, f"msvd_qa {split}")


def _video_questions(path: Path) -> dict[int, tuple[str, tuple[Question, ...]]]:
    """Reads for each video id the place of its first entry, for messages, and its questions."""
    places: dict[int, str] = {}
    asked: dict[int, list[Question]] = {}
    for number, entry in enumerate(read_json(path, list)):
        where = f"{path}, entry {number}"
        video = field(entry, "video_id", int, where)
        places.setdefault(video, where)
        asked.setdefault(video, []).append(_question(entry, where))
    return {video: (where, tuple(asked[video])) for video, where in places.items()}


MANIFEST_KEYS = ("video", "captions", "start_seconds", "end_seconds", "hard_negatives", "questions", "phrases", "scene")


def manifest_records(folder: Path, split: str, videos: Path) -> list[VideoRecord]:
    """Reads a plain JSONL manifest."""
    path = folder / f"{split}.jsonl"
    found: list[tuple[str, VideoRecord | None]] = []
    for where, line in read_lines(path):
        record = _manifest_record(parse_json(line, where), videos, where)
        found.append((str(record.video.relative_to(videos)), record if is_file(record.video) else None))
    return without_missing(found, videos, f"manifest {path}")


def _manifest_record(entry: Any, videos: Path, where: str) -> VideoRecord:
    """Reads a line of a manifest."""
    video = _path_inside(videos, field(entry, "video", str, where), where)
    for key in entry:
        if key not in MANIFEST_KEYS:
            nearest = difflib.get_close_matches(key, MANIFEST_KEYS, n=1)
            meant = f"; did you mean {nearest[0]}?" if nearest else ";"
            raise DataError(f"{where}: unknown key {key!r:.80}{meant} Known: {', '.join(MANIFEST_KEYS)}")
    start, end = seconds(entry, "start_seconds", where) or 0.0, seconds(entry, "end_seconds", where)
    if end is not None and end <= start:
        raise DataError(
            f"{where}: end_seconds is {end:g}; it must be greater than start_seconds, {start:g}, or left out for the "
            "end of the video"
        )
    questions = _questions(entry, where)
    told = bool(entry.get("captions")) or not questions
    captions = checked_texts(field(entry, "captions", list, where), where) if told else ()
    negatives = field(entry, "hard_negatives", list, where) if entry.get("hard_negatives") else []
    return VideoRecord(
        video,
        captions,
        end,
        checked_texts(negatives, where) if negatives else (),
        questions,
        start,
        _phrases(entry, where),
    )


def _path_inside(folder: Path, given: str, where: str) -> Path:
    """Returns the path of a video, given relative to the folder of videos or as an absolute path.

    ".." is taken from the path as it is written, whatever links there are on the way.
    """
    path = PurePosixPath(posixpath.normpath(given))
    for whole in (folder.absolute(), folder.resolve()):
        if path.is_relative_to(whole.as_posix()):
            path = path.relative_to(whole.as_posix())
    if path.is_absolute() or ".." in path.parts or any(c in given for c in "\\\0") or not path.name:
        raise DataError(f"{where}: {given!r:.80} is not a path inside {folder}; give one relative to that folder")
    return folder / path


def _questions(entry: Any, where: str) -> tuple[Question, ...]:
    """Reads the questions of a manifest's line."""
    asked = field(entry, "questions", list, where) if entry.get("questions") else []
    return tuple(_question(item, where) for item in asked)


def _question(item: Any, where: str) -> Question:
    """Reads a question, whose type defaults to its first word: what, who, how..."""
    question, answer = (field(item, key, str, where).strip() for key in ("question", "answer"))
    if not question or not answer:
        raise DataError(f"{where}: a question or its answer is blank")
    check_unicode(question + answer, where)
    kind = field(item, "type", str, where) if "type" in item else question.split()[0].lower()
    return Question(question, answer, kind)


def _phrases(entry: Any, where: str) -> tuple[Phrase, ...]:
    """Reads the phrases of a manifest's line, which name a caption by its place in the line's list."""
    told = field(entry, "phrases", list, where) if entry.get("phrases") else []
    return tuple(_phrase(item, entry, f"{where}, phrase {number}") for number, item in enumerate(told, 1))


def _phrase(item: Any, entry: Any, where: str) -> Phrase:
    place, start = (field(item, key, int, where) for key in ("caption", "start"))
    text, kind = (field(item, key, str, where) for key in ("text", "kind"))
    given = entry["captions"][place] if 0 <= place < len(entry.get("captions") or ()) else ""
    if not text.strip() or start < 0 or given[start : start + len(text)] != text:
        raise DataError(f"{where}: {text!r:.80} does not stand at character {start} of caption {place}")
    start -= len(given) - len(given.lstrip())
    begin, end = (seconds(item, key, where) for key in ("start_seconds", "end_seconds"))
    if begin is None or end is None or end <= begin:
        raise DataError(f"{where}: it lasts from {begin} to {end} seconds; give the begin and a later end")
    return Phrase(given.strip(), start, text, kind, begin, end)


def _annotation(video_id: str, captions: Iterable[str], where: str) -> Annotation:
    return Annotation(where, (checked_name(video_id, where),), checked_texts(captions, where))


READERS: dict[str, Callable[[Path, str, Path], list[VideoRecord]]] = {
    "activitynet": activitynet_records,
    "didemo": didemo_records,
    "lsmdc": lsmdc_records,
    "manifest": manifest_records,
    "msrvtt": msrvtt_records,
    "msrvtt_caption": msrvtt_caption_records,
    "msrvtt_qa": msrvtt_qa_records,
    "msvd": msvd_records,
    "msvd_qa": msvd_qa_records,
}
