"""Writes docs/results.md from the JSON that commands wrote; `--check` only compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hbi_infer.bench.machine import machine_sentence

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "benchmarks" / "results"
BUNDLE = ROOT / "hbi_infer" / "bundles" / "shapes" / "bundle.json"
LEVELS = ("entity", "action", "event")
TELLINGS = {
    "in_order": "events told in their order",
    "reversed": "events told in reverse",
    "at_once": "events at the same time",
}
BEGIN = (
    "<!-- made by scripts/make_results.py from the JSON that commands wrote; do not edit -->\n\n# Results\n\n"
    "Each number comes from a JSON in `benchmarks/results` or from the embedded bundle. The machine that a table was "
    "measured on is named beside it. The figures for encoding were measured on a processor that computes in bfloat16 "
    "(AVX-512 BF16 or AMX): a processor with AVX2 alone cannot reach them.\n"
)


def load(name: str) -> dict[str, Any] | None:
    """Returns a benchmark's document; None if it was never run."""
    path = RESULTS / f"{name}.json"
    content: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return content


def table(header: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine_of(document: dict[str, Any]) -> str:
    """Returns one line about where a measurement was taken."""
    return machine_sentence(document["machine"])


def accuracy() -> str:
    """Returns the metrics of the embedded model and of the baseline."""
    manifest = json.loads(BUNDLE.read_text())
    metrics = manifest["provenance"]["metrics"]
    baseline = load("baseline")

    def row(name: str, values: dict[str, float], level: str = "") -> list[str]:
        cells = [name]
        for direction in ("text_to_video", "video_to_text"):
            figures = [values[f"test/{level}{direction}/{metric}"] for metric in ("R@1", "R@5", "R@10", "MdR")]
            cells += [f"{figure:.1f}" for figure in figures[:3]] + [f"{figures[3]:.0f}"]
        return cells

    rows = [row("**HBI, all levels**", metrics)]
    rows += [row(f"HBI, {level['name']} level alone", metrics, f"{level['name']}/") for level in manifest["levels"]]
    if baseline:
        rows.append(row("mean-pooled CLIP, same budget", baseline))
    both = ["text to video R@1", "R@5", "R@10", "median rank", "video to text R@1", "R@5", "R@10", "median rank"]
    clips = round(metrics["test/clips"])
    recipe = json.loads(manifest["provenance"]["recipe"])
    optimiser = recipe["optimiser"]
    seconds = json.loads((RESULTS / "training_shapes.jsonl").read_text().splitlines()[-1])["seconds"]
    return (
        "## Accuracy of the embedded model\n\n"
        f"{clips:,} clips of the test split of `shapes`, none of whose attribute combinations occurs in training, each "
        f"with a caption of its own. Trained from scratch with `training/recipes/{recipe['name']}.yaml`: "
        f"{optimiser['steps']:,} steps of {optimiser['batch_size']} clips, {seconds / 60:.0f} minutes on two processor "
        "cores that compute in bfloat16. The baseline, "
        "`training/recipes/shapes_mean_pooled.yaml`, has the same encoders, clips, steps and rates.\n\n"
        f"{table(['model', *both], rows)}\n\n{tasks(metrics)}"
        "![Loss and recall while it trained](training.png)\n"
    )


def tasks(metrics: dict[str, float]) -> str:
    """Returns answers by type of question and the captions' metrics; "" for a model of retrieval alone."""
    prefix = "test/answer/accuracy"
    if prefix not in metrics:
        return ""
    kinds = [name.removeprefix(f"{prefix}/") for name in metrics if name.startswith(f"{prefix}/")]
    answers = table(
        ["questions about", "all", *kinds],
        [["right, %", *(f"{metrics[name]:.1f}" for name in (prefix, *(f"{prefix}/{kind}" for kind in kinds)))]],
    )
    right = [name for name in metrics if name.startswith("test/caption/right/")]
    scores = [f"test/caption/{name}" for name in ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr")]
    captions = table(
        [f"{name.split('/')[-1]} right, %" for name in right] + [name.split("/")[-1] for name in scores],
        [[f"{metrics[name]:.1f}" for name in (*right, *scores)]],
    )
    return (
        f"Answers to {metrics['test/answer/questions']:,.0f} questions about those clips; the probability that comes "
        f"with an answer is off by {metrics['test/answer/calibration_error']:.1f} points on average:\n\n{answers}\n\n"
        f"Captions, one of each clip, written greedily. The first columns say how many tell every colour, every shape "
        f"and so on rightly; METEOR is without synonyms (see [caption metrics](caption_metrics.md)):\n\n{captions}\n\n"
    )


def real_clips() -> str:
    """Returns how well a model finds real clips by captions and topics."""
    document = load("everyday")
    if document is None:
        return ""
    result = document["result"]
    rows = [
        [kind, str(result[kind]["queries"]), *(f"{result[kind][metric]:.0f} %" for metric in ("R@1", "R@5", "mAP"))]
        for kind in ("captions", "topics")
    ]
    few = " So few clips tell that it works, and nothing about how well." if result["videos"] < 30 else ""
    return (
        "## Real clips\n\n"
        f"The model `{result['bundle']['name']}` searches {result['videos']} real clips ({result['clips']}; "
        f"`python benchmarks/everyday.py`; {machine_of(document)}).{few}\n\n"
        f"{table(['by', 'queries', 'R@1', 'R@5', 'mAP'], rows)}\n"
    )


def grounding() -> str:
    """Returns whether the maps point at the right moments, level by level and by the order of telling."""
    document = load("grounding")
    if document is None:
        return ""
    result = document["result"]
    measured = result["measured"]

    def row(said: str, start: str) -> list[str]:
        shares = [measured[f"{start}/pointing/{name}"] for name in ("interaction", "cosine", "frame_weights")]
        return [said, *(f"{share:.1f} %" for share in (*shares, measured[f"{start}/chance"]))]

    rows = [row(f"{level} level", f"{level}/verb") for level in LEVELS if f"{level}/verb/chance" in measured]
    rows += [
        row(f"entity level, {said}", f"entity/verb/{telling}")
        for telling, said in TELLINGS.items()
        if f"entity/verb/{telling}/chance" in measured
    ]
    return (
        "## Explanations\n\n"
        "How often the largest value of a verb's row lies at a frame at which its event happens: of the exact "
        "interaction, of the bare cosine, and of the frames' weights, which know no word. A caption may tell two "
        'events in the order in which they happen or the other way round ("a star blinks after a ring grows"). '
        f"{result['clips']} unseen scenes, one caption of each (`python benchmarks/grounding.py`; bundle "
        f"`{result['bundle']['name']}`, {result['bundle']['sha256'][:8]}; {machine_of(document)}). "
        "At the entity level as many words and "
        f"frames have weight as {measured['entity/effective_words']:.1f} and {measured['entity/effective_frames']:.1f} "
        f"equal ones; the marks of start and end have {measured['entity/weight_of_marks']:.0f} % of the words' "
        "weight.\n\n"
        f"{table(['map', 'interaction', 'cosine', 'frame weights', 'chance'], rows)}\n"
    )


def speed() -> str:
    """Returns start-up, devices, indexing, captioning, answering, scoring and search."""
    made = (startup(), devices(), indexing(), captioning(), answering(), scoring(), search(), serving())
    return "\n".join(["## Speed\n", *filter(None, made)])


def startup() -> str:
    """Returns how long commands take from a cold process."""
    document = load("startup")
    if document is None:
        return ""
    result = document["result"]
    rows = [
        [f"`{name}`", f"{seconds['median']:.2f} s", f"{seconds['fastest']:.2f} to {seconds['slowest']:.2f} s"]
        for name, seconds in result["seconds"].items()
    ]
    return (
        f"Cold processes; the index holds {result['clips']:,} clips (`python benchmarks/startup.py`; "
        f"{machine_of(document)}):\n\n{table(['command', 'median', 'range'], rows)}\n"
    )


def serving() -> str:
    """Returns what clients of the service see, and what killing it loses."""
    document = load("serving")
    if document is None:
        return ""
    result = document["result"]
    samples, killed = result["samples"], result["killed_while_indexing"]

    def row(who: str, seen: dict[str, Any]) -> list[str]:
        times = [f"{1000 * seen[f'{name}_seconds']:,.0f} ms" for name in ("p50", "p95", "p99")]
        failed = sum(count for status, count in seen["statuses"].items() if status != "200")
        return [who, f"{seen['requests_per_second']:.1f}", *times, str(failed)]

    pictures, view = samples["uncached_thumbnails"], samples["first_view"]
    rows = [row("one client", result["one_client"]), row(f"{result['clients']} clients", result["together"])]
    header = ["who searches", "searches a second", "half within", "95 % within", "99 % within", "failed"]
    steps = result["memory_over_requests"]
    after = result["killed_under_load"]
    return (
        f"The service over {result['clips']:,} clips, searched over loopback (`python benchmarks/serving.py`; "
        f"{machine_of(document)}):\n\n"
        f"{table(header, rows)}\n\n"
        f"Over {steps[-1]['requests']:,} requests, one in four a search, its memory went from "
        f"{steps[0]['memory_bytes'] / 1e6:.0f} to {steps[-1]['memory_bytes'] / 1e6:.0f} MB. On the samples the first "
        f"view of the page ({view['files']} files) took {1000 * view['seconds']:.0f} ms, and a picture that nobody had "
        f"asked for {1000 * pictures['p50_seconds']:.0f} ms (95 % within {1000 * pictures['p95_seconds']:.0f} ms). Of "
        f"{samples['killed_workers']['asked']} pictures {samples['killed_workers']['answered']} came, though "
        f"{samples['killed_workers']['killed']} workers were killed. A server that was killed under load found the "
        f"{'same' if after['same_results'] else 'NOT the same'} {after['first_answer_after_seconds']:.1f} s after its "
        f"restart; one that was killed while it indexed kept {killed['kept']} videos, and went on to "
        f"{killed['indexed']} of {killed['files']} files, of which {killed['failed']} are damaged.\n"
    )


def scoring() -> str:
    """Returns how long a query takes to score, against the bare matrix product."""
    document = load("scoring")
    if document is None:
        return ""
    rows = [
        [f"{row['clips']:,}", str(row["width"]), f"{row['score_seconds']:.2f} s", f"{row['ratio']:.2f}"]
        for row in document["result"]["rows"]
    ]
    header = ["clips", "width", "one query, exact", "times the bare matrix product"]
    return f"Scoring (`python benchmarks/scoring.py`; {machine_of(document)}):\n\n{table(header, rows)}\n"


def search() -> str:
    """Returns what a shortlist keeps of the exact best clips, and how long a search takes."""
    document = load("index_scale")
    if document is None:
        return ""
    rows = [
        [
            f"{row['clips']:,}",
            f"{row['shortlist']['recall_at_10']['500']:.3f}",
            f"{row['shortlist']['recall_at_10']['1000']:.3f}",
            f"{row['cold_seconds']['default']['process']:.2f} s",
            f"{row['warm_seconds']['default']:.3f} s",
        ]
        for row in document["result"]["rows"]
    ]
    header = ["clips", "recall@10 of a shortlist of 500", "of 1,000", "cold process", "warm search"]
    text = (
        "Search of made-up, clustered tokens: how many of the exact ten best a shortlist keeps, and how long a "
        f"search takes by default (`python benchmarks/index_scale.py`; {machine_of(document)}):\n\n"
        f"{table(header, rows)}\n"
    )
    if real := document["result"].get("real"):
        kept = real["shortlist"]["recall_at_10"]
        text += (
            f"\nOf {real['clips']:,} real clips, searched with {real['queries']:,} captions by the embedded model, "
            f"a shortlist of 500 keeps {kept['500']:.3f} of the exact ten best, one of 1,000 {kept['1000']:.3f}.\n"
        )
    return text


def indexing() -> str:
    """Returns the speed of each part of indexing, and how long the whole waits for decoded frames."""
    document = load("indexing")
    if document is None:
        return ""
    result = document["result"]

    def row(name: str, key: str) -> list[str]:
        return [name, f"{result[key]:.1f} s", f"{result['clips'] / result[key]:.0f}"]

    rows = [
        row("decode, with nothing else going on", "decode_alone_seconds"),
        row("encode", "encode_seconds"),
        row("store", "store_seconds"),
        ["wait for frames not yet decoded", f"{result['wait_seconds']:.1f} s", "-"],
        row("all, decoding beside encoding", "total_seconds"),
    ]
    return (
        f"Indexing {result['clips']:,} clips of `shapes` with the embedded model; decoding runs in {result['workers']} "
        f"other processes while clips are encoded (`python benchmarks/indexing.py`; {machine_of(document)}):\n\n"
        f"{table(['stage', 'time', 'clips per second'], rows)}\n"
    )


def captioning() -> str:
    """Returns the caption decoder's tokens a second, with and without its cache, and those of transformers."""
    document = load("captioning")
    if document is None:
        return ""
    result = document["result"]
    ways = ("cached", "uncached", "transformers")
    rows = [
        [
            str(row["batch"]),
            str(row["beam"]),
            *(f"{row[way]['tokens_per_second']:,.0f}" for way in ways),
            f"{row['times_uncached']:.1f}",
            f"{row['times_transformers']:.1f}",
        ]
        for row in result["rows"]
    ]
    header = ["captions at a time", "beam", *ways, "times uncached", "times transformers"]
    return (
        f"Writing captions of {result['tokens']} tokens with the embedded model, in tokens a second: with the "
        "key-value cache, without it, and by `generate` of transformers with a decoder of the same size (`python "
        f"benchmarks/captioning.py`; {machine_of(document)}):\n\n"
        f"{table(header, rows)}\n"
    )


def answering() -> str:
    """Returns how long a question about an indexed clip takes."""
    document = load("answering")
    if document is None:
        return ""
    seconds = document["result"]["seconds"]
    cold, warm = (1000 * seconds[kind]["median"] for kind in ("cold", "warm"))
    return (
        f"A question about an indexed clip takes {cold:,.0f} ms from a cold process and {warm:.1f} ms in a warm one, "
        f"medians (`python benchmarks/answering.py`; {machine_of(document)}).\n"
    )


EAGER = "torch"


def devices() -> str:
    """Returns a model of real size on every measured device, against eager PyTorch; "" if none was."""
    bench = load("bench_vit_b_32")
    if bench is None:
        return ""
    result, reasons = bench["result"], []
    measured = {
        part["device"]: {(made["stage"], made["batch"]): made for made in part["measurements"]}
        for part in result["devices"]
        if part["agreement"]
    }
    batches = result["plan"]["batches"]
    eager = measured.get(EAGER, {}).get(("encode", batches[0]))
    rows = []
    for part in result["devices"]:
        if part["problem"]:
            how = "stopped before its end" if part["measurements"] else "did not run"
            reasons.append(f"`{part['device']}` {how}: {part['problem'].rstrip('.')}.")
        if part["device"] not in measured:
            continue
        made = measured[part["device"]]
        encode, query = made.get(("encode", batches[0])), made.get(("text encode", batches[0]))
        most, search = made.get(("encode", batches[-1])), made.get(("query end to end", batches[0]))
        rows.append(
            [
                f"`{part['device']}`",
                f"{1000 * encode['p50_seconds']:,.0f} ms" if encode else "-",
                f"{eager['p50_seconds'] / encode['p50_seconds']:.2f}" if encode and eager else "-",
                f"{most['items_per_second']:.2f}" if most else "-",
                f"{1000 * query['p50_seconds']:.1f} ms" if query else "-",
                f"{1000 * search['p50_seconds']:.1f} ms" if search else "-",
                f"{part['agreement']['smallest_cosine_unmerged']:.5f}",
                f"{part['peak_memory_bytes'] / 2**20:,.0f} MiB" if part["peak_memory_bytes"] else "-",
            ]
        )
    header = [
        "device",
        f"{batches[0]} clip, median",
        "times eager float32 PyTorch",
        f"clips a second, batch {batches[-1]}",
        "a text, median",
        "cut, encoded and scored with 1,000 clips",
        f"least cosine to `{next(iter(measured))}`",
        "peak memory",
    ]
    sampling = result["model"]["sampling"]
    missing = [] if bench["machine"]["gpu"] else ["No GPU was at hand: what it would give is not in this table."]
    return (
        f"Encoding {sampling['max_frames']} frames of {sampling['image_size']} pixels, and one text, with a model of "
        f"CLIP's ViT-B/32 with random weights; threads: {result['plan']['threads']} (`hbi-infer bench --random "
        f"vit-b-32`; {machine_of(bench)}):\n\n{table(header, rows)}\n\n"
        + "".join(f"{line}\n" for line in (*missing, *reasons))
        + "\n![Every stage on every device, as a picture](bench.png)\n"
    )


def interaction() -> str:
    """Returns the exact interaction against sampled ones, and what each part of the objective gave."""
    parts = []
    if exact := load("banzhaf"):
        result = exact["result"]
        rows = [
            [row["method"], f"{row['seconds']:.3g} s", f"{row['error_largest']:.1e}", f"{row['times_exact']:,.0f}"]
            for row in result["rows"]
        ]
        parts.append(
            f"The Banzhaf interaction of {result['pairs']} pairs of {result['text_tokens']} words and "
            f"{result['video_tokens']} frames; errors as parts of the largest value; sampling was timed on "
            f"{result['sampled_pairs']} of the pairs (`python benchmarks/banzhaf.py`; {machine_of(exact)}):\n\n"
            f"{table(['method', 'time', 'largest error', 'times the exact one'], rows)}\n"
        )
    if ablation := load("ablation"):
        result = ablation["result"]
        figures = {"text to video": "text_to_video/R@1", "video to text": "video_to_text/R@1"}
        rows = [
            [
                name,
                *(f"{row[key]['mean']:.1f} ± {row[key]['deviation']:.1f}" for key in figures.values()),
                f"{row['seconds_per_step']:.2f} s",
            ]
            for name, row in result["rows"].items()
        ]
        seeds = len(next(iter(result["rows"].values()))["text_to_video/R@1"]["seeds"])
        parts.append(
            f"What each part of the objective gives: a small model, {result['steps']} steps of {result['batch_size']} "
            f"pairs, R@1 of {result['test_clips']:,} unseen clips, mean and standard deviation of {seeds} seeds "
            f"(`python benchmarks/ablation.py --data data/shapes`; {machine_of(ablation)}):\n\n"
            f"{table(['objective', *figures, 'a step'], rows)}\n\n"
            "![The same as a picture, with error bars](ablation.png)\n\n"
            "Deep supervision gives most. The alignment costs recall where it stands alone and gains some beside deep "
            "supervision (`without Banzhaf` has the rest of `+ self-distillation`). Targets that are sampled teach as "
            "exact ones do and take longer. Reconstruction gives nothing at this budget, nor does reranking by it. The "
            "seeds of a row differ by as much as some of the rows.\n"
        )
    return "\n".join(["## The exact interaction\n", *parts]) if parts else ""


def damaged_videos() -> str:
    """Returns how many damaged files of each container are whole, partial and failed."""
    document = load("mutations")
    if document is None:
        return ""
    result = document["result"]
    outcomes = list(result["outcomes"])
    rows = [
        [container, *(str(counts.get(outcome, 0)) for outcome in outcomes)]
        for container, counts in {**result["by_container"], "all": result["outcomes"]}.items()
    ]
    return (
        "## Damaged videos\n\n"
        f"{result['files']:,} files, damaged at random by flipped bits, absurd numbers, cuts and the like, took "
        f"{result['seconds']:.0f} s to decode; {len(result['wrong'])} gave a result that makes no sense "
        f"(`python benchmarks/mutations.py`; {machine_of(document)}):\n\n"
        f"{table(['container', *outcomes], rows)}\n"
    )


def nothing_matches() -> str:
    """Returns which first results stay and go at each least match, and how many clips are unfamiliar."""
    document = load("nothing_matches")
    if document is None:
        return ""
    result = document["result"]
    drawn = result["drawn"]["folders"]
    parts = [
        "## When nothing matches\n",
        "What `--min-match` does to first results: right ones that stay / wrong ones that go, in percent, the wrong "
        "ones for queries whose scene is not in the folder. "
        f"Folders are drawn from {result['drawn']['clips']:,} clips of the test "
        "split of `shapes`; a query is the plain caption of a scene of that split "
        f"(`python benchmarks/nothing_matches.py`; {machine_of(document)}). The default for "
        f"this model is {result['min_match']:g}.\n",
        _curves({f"{int(size):,} clips": folder for size, folder in drawn.items()}),
        "",
        "Right first results of texts that tell only the first of a scene's events stay less often, in percent:\n",
        _curves({f"{int(size):,} clips": folder for size, folder in drawn.items()}, ("part_stay",)),
        "",
    ]
    if real := result.get("real"):
        counts = real["first_results"]
        parts += [
            f"The same for real videos: {', '.join(real['videos'])} ({real['clips']} clips), searched with "
            f"`{real['bundle']}` for {counts['right'] + counts['wrong']} things that they show and {counts['absent']} "
            f"that they do not. {counts['right']} first results are right. So few clips say little, and "
            "nothing is left out with this model unless `--min-match` is given.\n",
            _curves({f"{real['clips']} clips": real}),
            "",
        ]
    clips = result["unfamiliar"]
    parts += [f"The embedded model calls {clips['drawn']['percent']:g} % of those drawn clips unfamiliar"]
    if strange := clips.get("strange"):
        parts[-1] += f", and {strange['percent']:g} % of {strange['clips']} clips of {strange['videos']} real videos"
    return "\n".join([*parts[:-1], f"{parts[-1]}.\n"])


def _curves(folders: dict[str, Any], figures: Sequence[str] = ("right_stay", "absent_go")) -> str:
    """Returns a table of least matches by folders."""
    rows = []
    for row, point in enumerate(next(iter(folders.values()))["curve"]):
        points = [folder["curve"][row] for folder in folders.values()]
        cells = [" / ".join(_percent(found[name]) for name in figures) for found in points]
        rows.append([f"{point['min_match']:g}", *cells])
    return table(["least match", *folders], rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def main() -> None:
    """Writes the page, or fails where it is not what the JSON says."""
    parts = [accuracy(), grounding(), real_clips(), speed(), nothing_matches(), interaction(), damaged_videos()]
    made = "\n".join([BEGIN, *filter(None, parts)])
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made)
    elif made != PAGE.read_text():
        sys.exit("docs/results.md is not what the JSON says: run python scripts/make_results.py")


if __name__ == "__main__":
    main()
