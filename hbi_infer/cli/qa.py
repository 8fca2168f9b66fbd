"""The command `hbi-infer qa`."""

from pathlib import Path
from typing import Annotated

import typer

from hbi_infer.cli.inputs import (
    FolderOptions,
    as_given,
    end_with,
    find_clips,
    load_model,
    output_style,
    read_lines,
    tell_unfamiliar,
)
from hbi_infer.cli.options import (
    AllFilesOption,
    BundleOption,
    CsvOption,
    DeviceOption,
    ExcludeOption,
    IndexOption,
    JsonOption,
    NoUpdateOption,
    RebuildOption,
    VerboseOption,
    WorkersOption,
)
from hbi_infer.options import Answering
from hbi_infer.render import stdout


def qa(
    video: Annotated[Path, typer.Option(metavar="FILE|DIR", help="The video, or a folder of videos.")],
    question: Annotated[
        list[str] | None, typer.Option("--question", "-q", metavar="TEXT", help="What to answer; may be repeated.")
    ] = None,
    questions: Annotated[Path | None, typer.Option(metavar="FILE", help="A question on each line.")] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="N", min=1, help="How many answers to name, the likeliest first.")
    ] = Answering().top_k,
    threshold: Annotated[
        float, typer.Option(metavar="P", min=0, max=1, help='Say "don\'t know" where the best is less probable.')
    ] = Answering().min_probability,
    all_clips: Annotated[
        bool, typer.Option("--all-clips", help="An answer for each clip; by default for each video.")
    ] = False,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    index_file: IndexOption = None,
    workers: WorkersOption = None,
    rebuild: RebuildOption = False,
    no_update: NoUpdateOption = False,
    exclude: ExcludeOption = None,
    all_files: AllFilesOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Answer questions about a video, or about each video in a folder; what is new in it is indexed first.

    Of a long video the clip with the most probable answer counts. A video that is indexed is not decoded again. Into a
    pipe or a file go tab-separated lines: question, file, clip, start and end in seconds, answer, its probability, and
    the likeliest answers with theirs.

    \b
    hbi-infer qa --video samples/one.mp4 --question "what colour is the circle?"
    """  # noqa: D301
    from hbi_infer.render import tables
    from hbi_infer.tasks.qa import answer_clips, check_questions, encode_questions

    style = output_style(as_json, as_csv)
    if not (question or questions):
        raise typer.BadParameter("give --question, or --questions FILE")
    folder_options = FolderOptions(index_file, workers, rebuild, no_update, exclude, all_files, verbose).checked(video)
    texts = [*(question or ()), *read_lines(questions)]
    check_questions(texts)
    hbi = load_model(bundle, device, verbose)
    hbi.bundle.require("qa")
    options = Answering(top_k=top_k, min_probability=threshold, all_clips=all_clips)
    with find_clips(hbi, video, folder_options) as found:
        asked = encode_questions(hbi, texts)
        answers = answer_clips(hbi, asked, found.clips, options)
        if style == "json":
            documents = [
                {"question": text, "cut_at_word": cut, "answers": [answer.to_json() for answer in of_text]}
                for text, cut, of_text in zip(texts, asked.cut_at_words, answers, strict=True)
            ]
            stdout.emit_json(found.document | {"min_probability": threshold, "questions": documents})
        else:
            tables.show_answers(list(zip(texts, answers, strict=True)), style, as_given(video))
        tell_unfamiliar((answer for of_text in answers for answer in of_text), "answers")
    end_with(found.failures, "answered about")
