"""The machine that a measurement was taken on, in JSON and as a sentence."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hbi_engines.operating_system import CPUINFO, peak_memory_bytes, processor_facts
from hbi_infer.bench.machine import (
    INSTRUCTION_SETS,
    describe_machine,
    describe_processor,
    machine_sentence,
)
from tests.paths import ROOT

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu avx2 avx512f avx512_vnni avx_vnni avx512_bf16 amx_tile amx_int8 amx_bf16

processor\t: 1
model name\t: another
flags\t\t: fpu
"""


def test_the_peak_is_of_this_process_alone() -> None:
    """A child of a parent with much memory holds little."""
    ballast = np.ones(2**27, np.uint8)
    code = "from hbi_engines.operating_system import peak_memory_bytes; print(peak_memory_bytes())"
    child = int(subprocess.check_output([sys.executable, "-c", code]))
    assert 2**20 < child < ballast.nbytes < (peak_memory_bytes() or 0)


def test_model_and_instruction_sets_are_those_of_the_first_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(XEON)
    assert describe_processor(processor_facts(cpuinfo)) == {
        "processor": "Intel(R) Xeon(R) Platinum 8481C",
        "instruction_sets": list(INSTRUCTION_SETS.values()),
    }
    cpuinfo.write_text(XEON.replace(" avx512f avx512_vnni", "").replace(" avx512_bf16 amx_tile amx_int8 amx_bf16", ""))
    assert describe_processor(processor_facts(cpuinfo))["instruction_sets"] == ["AVX2", "AVX-VNNI"]


def test_where_nothing_is_listed_the_sets_are_unknown(tmp_path: Path) -> None:
    found = describe_processor(processor_facts(tmp_path / "none"))
    assert found == {"processor": platform.processor() or platform.machine(), "instruction_sets": None}
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert describe_processor(processor_facts(tmp_path / "arm")) == found


@pytest.mark.skipif(not CPUINFO.exists() or platform.machine() != "x86_64", reason="no x86 processor under Linux")
def test_this_machine_is_described_and_can_be_written_as_json() -> None:
    machine = describe_machine()
    flags = CPUINFO.read_text().split()
    assert ("AVX2" in machine["instruction_sets"]) is ("avx2" in flags)
    assert ("AMX-BF16" in machine["instruction_sets"]) is ("amx_bf16" in flags)
    assert json.loads(json.dumps(machine)) == machine
    assert all(name in machine_sentence(machine) for name in machine["instruction_sets"])


def test_a_sentence_says_the_instruction_sets_where_they_are_known() -> None:
    machine = {
        "processor": "Xeon",
        "usable_cores": 2,
        "memory_gib": 7.7,
        "gpu": "NVIDIA H100, 570.1",
        "load_average_1_minute": 0.5,
    }
    rest = "2 cores, 8 GiB, NVIDIA H100, 570.1; load 0.5 when it ended"
    assert machine_sentence(machine) == f"Xeon, {rest}"
    assert machine_sentence(machine | {"instruction_sets": None}) == f"Xeon, {rest}"
    assert machine_sentence(machine | {"instruction_sets": ["AVX2", "AVX-512"]}) == f"Xeon (AVX2, AVX-512), {rest}"
    assert machine_sentence(machine | {"instruction_sets": []}) == f"Xeon (no AVX2), {rest}"


def test_documents_of_before_have_a_sentence_too() -> None:
    document = json.loads((ROOT / "benchmarks" / "results" / "startup.json").read_text())
    document["machine"].pop("instruction_sets", None)
    assert machine_sentence(document["machine"]).startswith(document["machine"]["processor"])
