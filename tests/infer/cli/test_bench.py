"""`hbi-infer bench`, as real processes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hbi_infer.bench.plan import DEVICE_STAGES, HOST_STAGES
from hbi_infer.bench.report import to_text
from hbi_infer.bench.run import Report
from hbi_infer.bench.stages import LEAST_RUNS
from hbi_infer.bench.worker import HOST
from tests.builders.command_line import run


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run("bench", *arguments)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The embedded model on two devices that run, and on one that does not; by the command."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench(
        *("--device", "cpu,openvino", "--device", "cuda", "--batch", "1,3", "--seconds", "0.02"),
        *("--stage", "decode,tokenise,encode,text encode,score,similarity,query end to end,video end to end"),
        *("--json", folder / "all.json", "--plot", folder / "all.png"),
    )
    return {"done": done, "document": json.loads((folder / "all.json").read_text()), "plot": folder / "all.png"}


def test_the_command_measures_every_stage_on_every_device_that_runs(measured: dict[str, Any]) -> None:
    done, result = measured["done"], measured["document"]["result"]
    assert done.returncode == 3, done.stderr
    host, cpu, openvino, cuda = result["devices"]
    assert [part["device"] for part in result["devices"]] == [HOST, "cpu", "openvino", "cuda"]
    assert "cuda cannot run here" in cuda["problem"]
    assert not cuda["measurements"]
    for part, stages in ((host, HOST_STAGES), (cpu, DEVICE_STAGES), (openvino, DEVICE_STAGES)):
        assert not part["problem"]
        assert part["peak_memory_bytes"] > 2**24
        made = {(each["stage"], each["batch"]) for each in part["measurements"]}
        batches = {stage: {1} if stage in ("decode", "video end to end") else {1, 3} for stage in stages}
        wanted = {(stage, batch) for stage in stages for batch in batches[stage]}
        assert made == {(stage, batch) for stage, batch in wanted if stage not in ("answer", "caption")}
        for each in part["measurements"]:
            assert each["runs"] >= LEAST_RUNS
            assert 0 < each["p50_seconds"] <= each["p90_seconds"] <= each["p99_seconds"]
    assert openvino["agreement"]["smallest_cosine_unmerged"] > 0.9999
    assert 0 < openvino["agreement"]["largest_difference"] < 1e-3
    assert cpu["agreement"]["largest_difference"] == 0
    assert measured["document"]["machine"]["usable_cores"] >= 1
    for shown in ("video end to end", "openvino", "cuda cannot run here", "p99"):
        assert shown in done.stdout


def test_the_json_is_the_whole_report(measured: dict[str, Any]) -> None:
    document = measured["document"]
    report = Report.from_document(document)
    assert report.to_document() == document
    assert to_text(report) == measured["done"].stdout
    assert [result.device for result in report.failed] == ["cuda"]


def test_the_plot_is_a_picture(measured: dict[str, Any]) -> None:
    with Image.open(measured["plot"]) as image:
        assert image.format == "PNG"
        assert 1000 < image.width < 2000
        assert 600 < image.height < 2000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--batch", "one"], 2, "give whole numbers such as 1,8"),
        (["--device", "gpu"], 1, "there is no device 'gpu'"),
        (["--json", "no-such-folder/all.json"], 1, "cannot be written"),
        (["--random", "vit-b-32", "--bundle", "x"], 2, "leave --bundle and --checkpoint"),
        (["--videos", "no-such-folder", "--device", "cpu"], 1, "is not a folder"),
    ],
)
def test_wrong_usage_is_told_at_once(arguments: list[str], code: int, message: str) -> None:
    done = bench(*arguments)
    assert done.returncode == code
    assert message in " ".join(done.stderr.replace("│", " ").split())
