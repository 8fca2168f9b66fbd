"""Each benchmark runs in small and writes its JSON with the machine's description."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hbi_infer.model.bundle import Bundle, default_bundle_path
from hbi_training.data.shapes import write_shapes
from scripts import make_results
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("scoring", ["--clips", "300"]),
        ("index_scale", ["--clips", "1000", "--videos", "samples", "--queries", "{tmp}/queries.txt"]),
        ("startup", ["--clips", "50", "--repeats", "1"]),
        ("indexing", ["--videos", "samples"]),
        ("serving", ["--clips", "200", "--clients", "4", "--seconds", "1", "--requests", "40", "--copies", "1"]),
        ("banzhaf", ["--pairs", "4", "--sampled-pairs", "2", "--samples", "2"]),
        ("captioning", ["--batches", "1", "2", "--beams", "1", "2", "--tokens", "3", "--repeats", "1"]),
        ("answering", ["--repeats", "1"]),
        ("nothing_matches", ["--data", "{tmp}/shapes", "--sizes", "2", "--strange", "samples"]),
        ("grounding", ["--data", "{tmp}/shapes"]),
        ("everyday", ["--videos", "{tmp}/clips", "--bundle", "hbi_infer/bundles/shapes"]),
        ("mutations", ["--count", "40", "--seed", "3", "--out", "{tmp}/mutations.json"]),
    ],
)
def test_benchmark(name: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queries.txt").write_text("a red circle moves left\na blue square blinks\n")
    if name in ("nothing_matches", "grounding"):
        write_shapes(tmp_path / "shapes", 0, 0, 4, seed=1, workers=1)
    clips = tmp_path / "clips"
    clips.mkdir()
    described = []
    for name_of_file in ("two-big-red-rings-move-left.avi", "small-red-circle-moves-left-then-blue-square-blinks.mp4"):
        shutil.copy(ROOT / "samples" / name_of_file, clips)
        caption = Path(name_of_file).stem.replace("-", " ")
        described.append({"file": name_of_file, "captions": [caption], "topic": caption.split()[-1]})
    (clips / "clips.json").write_text(json.dumps(described))
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", *(argument.format(tmp=tmp_path) for argument in arguments)],
        cwd=ROOT,
        env={**os.environ, "HBI_BENCHMARK_RESULTS": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / f"{name}.json").read_text())
    assert document["benchmark"] == name
    assert document["machine"]["usable_cores"] >= 1
    assert document["result"]
    if name in ("indexing", "index_scale"):
        measured = document["result"].get("real", document["result"])
        assert measured["bundle_sha256"] == Bundle.load(default_bundle_path()).sha256
    if name == "grounding":
        monkeypatch.setattr(make_results, "RESULTS", tmp_path)
        assert "| entity level | " in make_results.grounding()
    if name == "nothing_matches":
        monkeypatch.setattr(make_results, "RESULTS", tmp_path)
        assert "| least match | 2 clips |" in make_results.nothing_matches()
    if name == "everyday":
        assert document["result"]["captions"] == {"queries": 2, "R@1": 100, "R@5": 100, "mAP": 100}
    if name == "indexing":
        monkeypatch.setattr(make_results, "RESULTS", tmp_path)
        assert "| decode, with nothing else going on | " in make_results.indexing()
    if name == "mutations":
        assert (document["result"]["files"], document["result"]["wrong"]) == (40, [])
        monkeypatch.setattr(make_results, "RESULTS", tmp_path)
        assert "| webm-vp8 | " in make_results.damaged_videos()


def test_indexing_tells_decoding_from_waiting_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"decode": 8.0, "decode_alone": 2.0, "wait": 0.5, "encode": 4.0, "store": 0.1, "total": 5.0}
    machine = dict.fromkeys(("processor", "usable_cores", "gpu", "load_average_1_minute"), "x") | {"memory_gib": 1}
    result = {"clips": 400, "workers": 3, **{f"{name}_seconds": value for name, value in seconds.items()}}
    (tmp_path / "indexing.json").write_text(json.dumps({"machine": machine, "result": result}))
    monkeypatch.setattr(make_results, "RESULTS", tmp_path)
    text = make_results.indexing()
    assert "decoding runs in 3 other processes while clips are encoded" in text
    assert text.splitlines()[-5:] == [
        "| decode, with nothing else going on | 2.0 s | 200 |",
        "| encode | 4.0 s | 100 |",
        "| store | 0.1 s | 4000 |",
        "| wait for frames not yet decoded | 0.5 s | - |",
        "| all, decoding beside encoding | 5.0 s | 80 |",
    ]


def test_the_ablation_runs_in_small_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    write_shapes(tmp_path / "data", 12, 6, 6, seed=3, workers=1)
    command = [sys.executable, "benchmarks/ablation.py", "--data", str(tmp_path / "data"), "--seeds", "0"]
    command += ["--runs", str(tmp_path / "runs")]
    for setting in ("optimiser.steps=1", "optimiser.batch_size=4", "report.evaluate_steps=1"):
        command += ["--set", setting]
    results = []
    for _ in range(2):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "HBI_BENCHMARK_RESULTS": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        results.append(json.loads((tmp_path / "ablation.json").read_text())["result"])
    assert "training" not in done.stderr
    assert results[0] == results[1]
    assert set(results[0]["rows"]) >= {"contrastive", "+ Banzhaf", "+ reconstruction", "Banzhaf sampled"}
    assert all(len(row["text_to_video/R@1"]["seeds"]) == 1 for row in results[0]["rows"].values())
