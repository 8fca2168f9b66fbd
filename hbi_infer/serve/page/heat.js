// Why a moment was found: which words belong to which frames, and what each is worth with each at every level.

import { thumbnail } from "./api.js";
import { make, setVariables } from "./dom.js";
import { clock, percent, signed } from "./format.js";

const FRAME_WIDTH = 96;
const NUM_NAMED = 3;
const MEANING =
  "A word and a frame are worth together what they add to the similarity beyond what each adds without the other, on average over all choices of the others (Banzhaf interaction, exact).";

export class HeatMap {
  /**
   * @param {object} explanation What /v1/explain answers.
   * @param {object} listeners
   * @param {(seconds: number|null) => void} listeners.mark Told which frame is looked at.
   * @param {(seconds: number) => void} listeners.seek Told which frame is chosen.
   */
  constructor(explanation, { mark, seek }) {
    Object.assign(this, { explanation, mark, seek });
    this.maps = [mapOfWords(explanation.word_map), ...explanation.levels.map((level) => mapOfLevel(level, explanation))];
    this.table = make("table", { class: "heat", on: { mouseleave: () => this.look(null, null) } });
    this.readout = make("p", { class: "readout" });
    this.meaning = make("p", { class: "small" });
    this.element = make(
      "div",
      {},
      make("p", { class: "sentence" }, explanation.word_map.sentence),
      this.mapChoice(),
      make("div", { class: "scroll", role: "region", "aria-label": "Words by frames", tabindex: "0" }, this.table),
      this.readout,
      this.meaning,
      ...fidelity(explanation.fidelity),
      ...explanation.remarks.map((remark) => make("p", { class: "small" }, `${remark}.`)),
    );
    this.show(this.maps[0]);
  }

  mapChoice() {
    const choices = this.maps.map((map, place) =>
      make(
        "label",
        {},
        make("input", { type: "radio", name: "level", value: map.name, checked: place === 0, on: { change: () => this.show(map) } }),
        make("span", {}, map.name),
      ),
    );
    return make("fieldset", { class: "segments" }, make("legend", { class: "unseen" }, "Level of the map"), ...choices);
  }

  show(map) {
    Object.assign(this, map);
    this.limit = Math.max(...map.values.flat().map((value) => Math.abs(value ?? 0)), 0);
    this.meaning.textContent = map.explained;
    this.table.replaceChildren(make("caption", { class: "unseen" }, map.caption), this.head(), this.body());
    setVariables(this.table, { columns: String(this.explanation.frame_seconds.length) });
    this.look(null, null);
  }

  head() {
    const frames = this.explanation.frame_seconds.map((seconds, column) => this.frameHead(seconds, column));
    return make("thead", {}, make("tr", {}, make("td", {}), ...frames));
  }

  frameHead(seconds, column) {
    const address = this.explanation.frames?.[column];
    const time = clock(seconds, { tenths: true });
    const look = () => this.look(null, column);
    return make(
      "th",
      { scope: "col", "data-column": column },
      make(
        "button",
        { type: "button", "aria-label": `Show the frame at ${time}`, on: { mouseenter: look, focus: look, blur: () => this.look(null, null), click: () => this.seek(seconds) } },
        address ? make("img", { src: thumbnail(address, FRAME_WIDTH), alt: "", loading: "lazy", decoding: "async" }) : null,
        make("span", {}, seconds < 100 ? seconds.toFixed(1) : clock(seconds)),
      ),
    );
  }

  body() {
    const rows = this.words.map((word, row) =>
      make("tr", { class: /^\[.*\]$/.test(word) ? "edge" : null }, make("th", { scope: "row" }, word), ...this.values[row].map((value, column) => this.cell(value, row, column))),
    );
    return make("tbody", {}, ...rows);
  }

  cell(value, row, column) {
    const attributes = { "data-row": row, "data-column": column };
    if (value === null) return make("td", { ...attributes, class: "none" }, make("span", { class: "unseen" }, "left out"));
    const share = this.limit ? Math.abs(value) / this.limit : 0;
    return make(
      "td",
      {
        ...attributes,
        class: `${value < 0 ? "takes" : "adds"}${this.belongs(row, column) ? " belongs" : ""}`,
        vars: { share: `${(100 * share).toFixed(1)}%` },
        on: { mouseenter: () => this.look(row, column), click: () => this.seek(this.explanation.frame_seconds[column]) },
      },
      make("span", { class: "unseen" }, signed(value, this.limit)),
    );
  }

  /** Returns whether a word and a frame are of one of the phrases that belong to a moment. */
  belongs(row, column) {
    return this.phrases.some(({ words, frames }) => words.includes(row) && frames.includes(column));
  }

  /** Marks a word and a frame, or a whole frame, or nothing. */
  look(row, column) {
    const { words } = this;
    const { frame_seconds: seconds } = this.explanation;
    for (const marked of this.table.querySelectorAll(".marked")) marked.classList.remove("marked");
    if (column !== null) for (const cell of this.table.querySelectorAll(`[data-column="${column}"]`)) cell.classList.add("marked");
    if (row !== null) this.table.tBodies[0].rows[row].classList.add("marked");
    this.table.classList.toggle("of-frame", column !== null && row === null);
    this.mark(column === null ? null : seconds[column]);
    if (column === null) this.readout.textContent = this.strongest();
    else if (row === null) this.readout.textContent = `${clock(seconds[column], { tenths: true })} — ${this.ofFrame(column)}`;
    else this.readout.textContent = `“${words[row]}” at ${clock(seconds[column], { tenths: true })}: ${this.number(this.values[row][column])}`;
  }

  number(value) {
    return value === null ? "left out" : signed(value, this.limit);
  }

  ofFrame(column) {
    const of = this.words.map((word, row) => ({ word, value: this.values[row][column] ?? 0 }));
    of.sort((one, other) => other.value - one.value);
    return of.slice(0, NUM_NAMED).map(({ word, value }) => `${word} ${signed(value, this.limit)}`).join(", ");
  }

  strongest() {
    const pairs = this.values.flatMap((row, place) => row.map((value, column) => ({ value: value ?? -Infinity, place, column })));
    const best = pairs.reduce((one, other) => (other.value > one.value ? other : one), { value: -Infinity });
    if (!(best.value > 0)) return "No word and frame add to each other.";
    const { words } = this;
    const { frame_seconds: seconds } = this.explanation;
    return `Strongest: “${words[best.place]}” at ${clock(seconds[best.column], { tenths: true })}, ${signed(best.value, this.limit)}`;
  }
}

/** Returns what is shown of the map of words, whose marked phrases belong to a part of the clip. */
function mapOfWords({ words, values, phrases, meaning }) {
  const told = phrases.filter(({ is_everywhere: isEverywhere }) => !isEverywhere);
  return { name: "words", caption: "Which words belong to which frames", words, values, phrases: told, explained: meaning };
}

/** Returns what is shown of a level, with the words as the model reads them. */
function mapOfLevel(level, explanation) {
  const caption = `What words and frames are worth together at the ${level.name} level`;
  return { name: level.name, caption, words: explanation.words, values: expanded(level, explanation), phrases: [], explained: MEANING };
}

/** Spreads the map of merged words and frames over each word (row) and each frame (column); null is left out. */
function expanded(level, explanation) {
  const tokenOf = (groups, number) => Array.from({ length: number }, (_, place) => groups.findIndex((group) => group.includes(place)));
  const rows = tokenOf(level.word_groups, explanation.words.length);
  const columns = tokenOf(level.frame_groups, explanation.frame_seconds.length);
  return rows.map((row) => columns.map((column) => (row < 0 || column < 0 ? null : level.interaction[row][column])));
}

function fidelity(measured) {
  if (!measured) return [];
  const { num_removed: removed, num_pairs: pairs, by_interaction: strongest, at_random: random } = measured;
  return [
    make(
      "p",
      { class: "small" },
      `Over all levels: without the strongest ${removed} of ${pairs} pairs the similarity falls by ${percent(strongest.drop)}; without as many at random, by ${percent(random.drop)}.`,
    ),
  ];
}
