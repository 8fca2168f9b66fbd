"""Draws the report of `hbi-infer bench`: for each stage the devices' times, below each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from PIL import Image, ImageDraw

from hbi_infer.bench.figures import by_stage, milliseconds, per_second
from hbi_infer.bench.machine import processor_phrase
from hbi_infer.bench.plan import STAGES
from hbi_infer.bench.run import DeviceResult, Report
from hbi_infer.bench.stages import StageTiming
from hbi_infer.bench.worker import HOST
from hbi_infer.render.heat_scale import BLACK
from hbi_infer.render.picture import COLOURS, GREY, GRID, RED, blank, fonts_for, framed, png, stacked, text_block
from hbi_infer.render.stdout import printable

GAP = 28
WIDTH = 640
"""Width of a panel; two stand side by side."""
LABEL_WIDTH, NUMBER_WIDTH = 190, 150
BAR, BAR_GAP, GROUP_GAP = 18, 4, 10
MOST_STRETCH = 1.6
"""Length of the longest line, in longest bars; a slower call gets a line without an end, so that bars stay readable."""
TITLE, HEADING, TEXT = 25, 18, 14

Group: TypeAlias = tuple[int, list[tuple[str, StageTiming]]]
"""Batch size, and the devices' timings of it."""


def picture(report: Report) -> bytes:
    """Returns the report as a PNG."""
    return png(draw_picture(report))


def draw_picture(report: Report) -> Image.Image:
    """Draws a panel for each stage, in two columns of about the same height."""
    devices = [result.device for result in report.devices if result.device != HOST]
    colours = {HOST: GREY} | {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(devices)}
    columns: list[list[Image.Image]] = [[], []]
    for stage in STAGES:
        groups = [(batch, timings) for (name, batch), timings in by_stage(report).items() if name == stage]
        if groups:
            shorter = min(columns, key=lambda column: sum(each.height + GAP for each in column))
            shorter.append(_panel(stage, groups, colours))
    return framed(stacked([_head(report), _side_by_side([stacked(each, GAP) for each in columns if each])], GAP))


def _side_by_side(columns: Sequence[Image.Image]) -> Image.Image:
    sheet, _ = blank(2 * WIDTH + GAP, max((column.height for column in columns), default=0))
    for place, column in enumerate(columns):
        sheet.paste(column, (place * (WIDTH + GAP), 0))
    return sheet


def _head(report: Report) -> Image.Image:
    """Writes the model, the machine, the meaning of the bars, and the devices that could not run."""
    machine, sampling = report.machine, report.model["sampling"]
    sizes = f"{sampling['max_frames']} frames of {sampling['image_size']} pixels, {report.model['width']} wide"
    place = f"{processor_phrase(machine)}, threads: {report.plan['threads']}, {machine['gpu'] or 'no GPU'}"
    lines = [
        (printable(f"{report.model['name']}: {sizes}"), TITLE, BLACK),
        (printable(f"{place}; load {machine['load_average_1_minute']} at the end; {report.measured_at}"), TEXT, GREY),
        ("Time for one item: the bar is the median of all calls, the line ends at the 99th percentile.", TEXT, GREY),
        *((printable(_stopped(result)), TEXT, RED) for result in report.failed),
    ]
    return text_block(lines, 2 * WIDTH + GAP, fonts_for("".join(text for text, _, _ in lines)))


def _stopped(result: DeviceResult) -> str:
    return f"{result.device} {'stopped before its end' if result.measurements else 'could not run'}"


def _panel(stage: str, groups: Sequence[Group], colours: dict[str, str]) -> Image.Image:
    """Draws the bars of one stage, grouped by batch size."""
    font = fonts_for()
    bars = sum(len(timings) for _, timings in groups)
    body = bars * (BAR + BAR_GAP) + len(groups) * (TEXT + GROUP_GAP + 8)
    sheet, draw = blank(WIDTH, HEADING + GROUP_GAP + body)
    draw.text((0, HEADING), stage, BLACK, font(HEADING), anchor="ls")
    draw.line([(0, HEADING + 6), (WIDTH, HEADING + 6)], GRID)
    pixels_per_second = (WIDTH - LABEL_WIDTH - NUMBER_WIDTH) / _longest_seconds(groups)
    top = HEADING + GROUP_GAP
    for batch, group in groups:
        draw.text((LABEL_WIDTH, top + TEXT + 2), f"batch {batch}", GREY, font(TEXT - 2), anchor="ls")
        top += TEXT + 8
        for device, timing in group:
            _bar(draw, top, device, timing, colours[device], pixels_per_second)
            top += BAR + BAR_GAP
        top += GROUP_GAP
    return sheet


def _longest_seconds(groups: Sequence[Group]) -> float:
    """Returns the time for one item that takes the whole width of a panel."""
    timings = [timing for _, group in groups for _, timing in group]
    longest_bar = max(timing.p50_seconds / timing.batch for timing in timings)
    return min(max(timing.p99_seconds / timing.batch for timing in timings), MOST_STRETCH * longest_bar)


def _bar(
    draw: ImageDraw.ImageDraw, top: int, device: str, timing: StageTiming, colour: str, pixels_per_second: float
) -> None:
    """Draws one timing: the device, a bar with its line, and the numbers."""
    font, middle = fonts_for(), top + BAR / 2
    median, slow = (
        LABEL_WIDTH + pixels_per_second * seconds / timing.batch for seconds in (timing.p50_seconds, timing.p99_seconds)
    )
    draw.text((LABEL_WIDTH - 8, middle), printable(device), BLACK, font(TEXT), anchor="rm")
    draw.rectangle([LABEL_WIDTH, top, max(median, LABEL_WIDTH + 1), top + BAR], colour)
    end = min(slow, WIDTH - NUMBER_WIDTH)
    draw.line([(median, middle), (end, middle)], BLACK)
    if end == slow:
        draw.line([(end, middle - 4), (end, middle + 4)], BLACK)
    numbers = f"{milliseconds(timing.p50_seconds / timing.batch)}, {per_second(timing.items_per_second)}/s"
    draw.text((end + 8, middle), numbers, BLACK, font(TEXT - 1), anchor="lm")
