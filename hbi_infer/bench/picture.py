"""What `hbi-infer bench` measured, as a picture: for each stage the devices' times, below each other."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from hbi_infer.bench.report import by_stage, milliseconds, per_second
from hbi_infer.bench.run import DeviceResult, Report
from hbi_infer.bench.stages import STAGES, Measurement
from hbi_infer.bench.worker import HOST
from hbi_infer.render.heat_scale import BLACK, WHITE
from hbi_infer.render.terminal import printable

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933", "#777777")
"""Of devices, in their order; told apart by the colour-blind too."""
GREY = "#64646c"
GRID = "#e4e4e7"
MARGIN, GAP = 36, 28
WIDTH = 640
"""Of a panel; two stand side by side."""
LABEL_WIDTH, NUMBER_WIDTH = 190, 150
BAR, BAR_GAP, GROUP_GAP = 18, 4, 10
MOST_STRETCH = 1.6
"""Where one call was far slower, its line has no end, so that the bars stay readable."""
TITLE, HEADING, TEXT = 25, 18, 14

Group = tuple[int, list[tuple[str, Measurement]]]
"""A size of a batch, and the devices' measurements of it."""


def picture(report: Report) -> bytes:
    """The report as a PNG."""
    buffer = io.BytesIO()
    draw_picture(report).save(buffer, "png")
    return buffer.getvalue()


def draw_picture(report: Report) -> Image.Image:
    """A panel for each stage, in two columns of about the same height."""
    devices = [result.device for result in report.devices if result.device != HOST]
    colours = {HOST: GREY} | {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(devices)}
    panels = [_panel(stage, groups, colours) for stage in STAGES if (groups := _groups(report, stage))]
    columns: list[list[Image.Image]] = [[], []]
    for panel in panels:
        min(columns, key=lambda column: sum(each.height + GAP for each in column)).append(panel)
    head = _head(report)
    height = max(sum(panel.height + GAP for panel in column) for column in columns)
    sheet = Image.new("RGB", (head.width + 2 * MARGIN, head.height + height + 2 * MARGIN), WHITE)
    sheet.paste(head, (MARGIN, MARGIN))
    for place, column in enumerate(columns):
        top = MARGIN + head.height
        for panel in column:
            sheet.paste(panel, (MARGIN + place * (WIDTH + GAP), top))
            top += panel.height + GAP
    return sheet


def _groups(report: Report, stage: str) -> list[Group]:
    return [(batch, made) for (name, batch), made in by_stage(report).items() if name == stage]


def _head(report: Report) -> Image.Image:
    """The model, the machine, what the bars are, and the devices that could not run."""
    machine, sampling = report.machine, report.model["sampling"]
    sizes = f"{sampling['max_frames']} frames of {sampling['image_size']} pixels, {report.model['width']} wide"
    place = f"{machine['processor']}, threads: {report.plan['threads']}, {machine['gpu'] or 'no GPU'}"
    lines = [
        (printable(f"{report.model['name']}: {sizes}"), TITLE, BLACK),
        (printable(f"{place}; load {machine['load_average_1_minute']} at the end; {report.measured_at}"), TEXT, GREY),
        ("Time for one item: the bar is the median of all calls, the line ends at the 99th percentile.", TEXT, GREY),
        *((printable(_stopped(result)), TEXT, "#b2182b") for result in report.failed),
    ]
    sheet = Image.new("RGB", (2 * WIDTH + GAP, sum(round(1.6 * size) for _, size, _ in lines) + GAP), WHITE)
    draw, top = ImageDraw.Draw(sheet), 0
    for text, size, colour in lines:
        draw.text((0, top + size), text, colour, _font(size), anchor="ls")
        top += round(1.6 * size)
    return sheet


def _stopped(result: DeviceResult) -> str:
    return f"{result.device} {'stopped before its end' if result.measurements else 'could not run'}"


def _panel(stage: str, groups: Sequence[Group], colours: dict[str, str]) -> Image.Image:
    """The bars of one stage, in groups of one size of a batch."""
    bars = sum(len(made) for _, made in groups)
    body = bars * (BAR + BAR_GAP) + len(groups) * (TEXT + GROUP_GAP + 8)
    sheet = Image.new("RGB", (WIDTH, HEADING + GROUP_GAP + body), WHITE)
    draw = ImageDraw.Draw(sheet)
    draw.text((0, HEADING), stage, BLACK, _font(HEADING), anchor="ls")
    draw.line([(0, HEADING + 6), (WIDTH, HEADING + 6)], GRID)
    room = WIDTH - LABEL_WIDTH - NUMBER_WIDTH
    every = [made for _, group in groups for _, made in group]
    longest = max(made.p50_seconds / made.batch for made in every)
    longest = min(max(made.p99_seconds / made.batch for made in every), MOST_STRETCH * longest)
    top = HEADING + GROUP_GAP
    for batch, group in groups:
        draw.text((LABEL_WIDTH, top + TEXT + 2), f"batch {batch}", GREY, _font(TEXT - 2), anchor="ls")
        top += TEXT + 8
        for device, made in group:
            _bar(draw, top, device, made, colours[device], room / longest)
            top += BAR + BAR_GAP
        top += GROUP_GAP
    return sheet


def _bar(
    draw: ImageDraw.ImageDraw, top: int, device: str, made: Measurement, colour: str, pixels_per_second: float
) -> None:
    """One measurement: the device, a bar with its line, and the numbers."""
    middle = top + BAR / 2
    median, slow = (
        LABEL_WIDTH + pixels_per_second * seconds / made.batch for seconds in (made.p50_seconds, made.p99_seconds)
    )
    draw.text((LABEL_WIDTH - 8, middle), printable(device), BLACK, _font(TEXT), anchor="rm")
    draw.rectangle([LABEL_WIDTH, top, max(median, LABEL_WIDTH + 1), top + BAR], colour)
    end = min(slow, WIDTH - NUMBER_WIDTH)
    draw.line([(median, middle), (end, middle)], BLACK)
    if end == slow:
        draw.line([(end, middle - 4), (end, middle + 4)], BLACK)
    numbers = f"{milliseconds(made.p50_seconds / made.batch)}, {per_second(made.items_per_second)}/s"
    draw.text((end + 8, middle), numbers, BLACK, _font(TEXT - 1), anchor="lm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, the same on every machine."""
    return ImageFont.load_default(size)
