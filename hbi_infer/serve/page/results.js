// The grid: moments that were found, or the videos where nothing is searched yet.

import { get, post, postPicture, thumbnail } from "./api.js";
import { isSearch, searchKey, writeAddress } from "./address.js";
import { alarm, button, byId, isPlain, make } from "./dom.js";
import { clock, count, pathParts, percent, span } from "./format.js";

const PAGE = 24;
const THUMBNAIL_WIDTH = 320;

/** How many searches are kept, so that going back shows them at once. */
const KEPT = 12;

export class Results {
  /**
   * @param {object} options
   * @param {(changes: object) => void} options.open Goes to a state with these changes.
   * @param {PictureShelf} options.pictures Where dropped pictures lie.
   * @param {() => object} options.collection Returns the collection that is shown.
   * @param {() => void} options.loaded Told when more is known of what was found.
   */
  constructor({ open, pictures, collection, loaded }) {
    Object.assign(this, { open, pictures, collection, loaded });
    this.kept = new Map();
    this.shown = null;
    this.state = null;
    this.grid = byId("grid");
    this.more = byId("more");
    this.more.addEventListener("click", () => this.load());
    this.grid.addEventListener("keydown", (event) => this.move(event));
    new IntersectionObserver(([entry]) => entry.isIntersecting && this.load(), { rootMargin: "600px" }).observe(this.more);
  }

  /** Shows the results of a state, anew only if the search is another. */
  show(state) {
    this.state = state;
    const key = searchKey(state);
    if (this.shown?.key !== key) this.begin(key);
    this.markOpen();
  }

  /** Forgets what was found, for an index that has changed, and looks again. */
  refresh() {
    this.kept.clear();
    this.shown = null;
    this.show(this.state);
  }

  /** Returns what is known of a clip that was found. */
  match(clip) {
    return this.shown?.items.find((item) => item.clip === clip) ?? null;
  }

  begin(key) {
    this.calls?.abort();
    this.calls = new AbortController();
    const kept = this.kept.get(key);
    this.shown = kept ?? { key, items: [], next: 0, notes: [], leftOut: 0, total: null, loaded: false };
    this.busy = false;
    byId("results-title").textContent = this.title();
    byId("notes").replaceChildren();
    if (kept) this.draw();
    else {
      this.grid.classList.add("stale");
      this.more.hidden = true;
      byId("status").textContent = "Searching …";
      this.load();
    }
  }

  title() {
    if (this.state.query) return `“${this.state.query}”`;
    if (this.state.like) return "Moments like this one";
    return this.state.picture ? "Moments like the picture" : "Videos";
  }

  async load() {
    const { shown } = this;
    if (!shown || this.busy || shown.next === null) return;
    this.busy = true;
    try {
      const part = await this.ask(shown.next);
      if (this.shown !== shown) return;
      Object.assign(shown, { ...part, items: [...shown.items, ...part.items], loaded: true });
      this.keep(shown);
      this.draw();
      this.loaded();
    } catch (error) {
      if (error.name !== "AbortError" && this.shown === shown) this.fail(error);
    } finally {
      if (this.shown === shown) this.busy = false;
    }
  }

  ask(offset) {
    return isSearch(this.state) ? this.search(offset) : this.list(offset);
  }

  async search(offset) {
    const { state } = this;
    const picture = this.pictures.get(state.picture);
    if (state.picture && !picture) throw new Error("The picture is no longer here. Drop it again.");
    const options = { ...searchBody(state, this.collection()), top_k: PAGE, offset };
    const answer = picture
      ? await postPicture("/v1/search", picture, options, this.calls.signal)
      : await post("/v1/search", options, this.calls.signal);
    const { results, next_offset: next, notes, left_out: leftOut } = answer;
    return { items: results, next, notes: notes ?? [], leftOut: leftOut ?? 0, total: null };
  }

  async list(offset) {
    const query = { collection: this.collection()?.id, offset, limit: PAGE };
    const { videos, total } = await get("/v1/videos", query, this.calls.signal);
    const end = offset + videos.length;
    return { items: videos, next: videos.length && end < total ? end : null, notes: [], leftOut: 0, total };
  }

  keep(shown) {
    this.kept.delete(shown.key);
    this.kept.set(shown.key, shown);
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
  }

  draw() {
    const { items, next } = this.shown;
    const card = isSearch(this.state) ? (item) => this.momentCard(item) : (item) => this.videoCard(item);
    const isMore = this.drawn === this.shown;
    const cards = items.slice(isMore ? this.grid.children.length : 0).map(card);
    if (isMore) this.grid.append(...cards);
    else this.grid.replaceChildren(...cards);
    this.drawn = this.shown;
    this.grid.classList.remove("stale");
    this.more.hidden = next === null;
    byId("status").textContent = this.summary();
    this.drawNotes();
    this.markOpen();
  }

  summary() {
    const { items, next, total } = this.shown;
    if (!isSearch(this.state)) return total ? count(total, "video") : "";
    if (!items.length) return "Nothing matches.";
    return `${count(items.length, "moment")}${next === null ? "" : ", more below"}`;
  }

  drawNotes() {
    const { notes, leftOut, items } = this.shown;
    const lines = notes.map((text) => make("p", { class: "note" }, text));
    if (leftOut) {
      const text = `${count(leftOut, "moment")} ${leftOut === 1 ? "matches" : "match"} no better than a sentence about something else.`;
      lines.push(make("p", { class: "note" }, text, " ", button(leftOut === 1 ? "Show it" : "Show them", () => this.open({ poor: "show" }), { class: "inline" })));
    }
    if (!items.length && !isSearch(this.state)) lines.push(make("p", { class: "note" }, "There is no video in the index yet. The library says what is being indexed."));
    byId("notes").replaceChildren(...lines);
  }

  fail(error) {
    this.grid.classList.remove("stale");
    this.grid.replaceChildren();
    this.drawn = null;
    this.more.hidden = true;
    byId("status").textContent = "";
    byId("notes").replaceChildren(alarm(error.message, button("Try again", () => this.retry())));
  }

  retry() {
    byId("notes").replaceChildren();
    this.shown = null;
    this.show(this.state);
  }

  momentCard(match) {
    const { folder, name } = pathParts(match.path);
    const at = match.start_seconds;
    return this.card({
      target: { video: match.video, clip: match.clip, at: String(at) },
      picture: match.thumbnail,
      time: span(at, match.end_seconds),
      title: name,
      lines: [
        folder || null,
        match.match === null || match.match === undefined ? null : matchLine(match),
        match.match === null || match.match === undefined ? make("span", { class: "score" }, `score ${match.score.toFixed(3)}`) : null,
        match.unfamiliar ? make("span", { class: "warning" }, "unlike what the model knows") : null,
        match.copies?.length ? `and ${count(match.copies.length, "copy").replace("copys", "copies")}` : null,
      ],
    });
  }

  videoCard(video) {
    const { folder, name } = pathParts(video.path);
    const duration = video.duration_seconds;
    return this.card({
      target: { video: video.id, clip: "", at: "" },
      picture: video.thumbnail,
      time: duration ? clock(duration) : "",
      title: name,
      lines: [folder || null, count(video.clips, "clip")],
    });
  }

  card({ target, picture, time, title, lines }) {
    const open = (event) => {
      if (!isPlain(event)) return;
      event.preventDefault();
      this.open(target, { play: true });
    };
    return make(
      "li",
      {},
      make(
        "a",
        { class: "card", href: writeAddress({ ...this.state, ...target }), "data-video": target.video, "data-clip": target.clip, "data-at": target.at, on: { click: open } },
        make(
          "span",
          { class: "frame" },
          picture ? make("img", { src: thumbnail(picture, THUMBNAIL_WIDTH), alt: "", loading: "lazy", decoding: "async" }) : null,
          time ? make("span", { class: "time" }, time) : null,
        ),
        make("span", { class: "name" }, title),
        ...lines.filter(Boolean).map((line) => make("span", { class: "line" }, line)),
      ),
    );
  }

  markOpen() {
    const { video, clip } = this.state;
    for (const card of this.grid.querySelectorAll(".card")) {
      const isOpen = video !== "" && card.dataset.video === video && (card.dataset.clip === clip || !card.dataset.clip);
      if (isOpen) card.setAttribute("aria-current", "true");
      else card.removeAttribute("aria-current");
    }
  }

  /** Moves the focus by arrows, as the cards lie. */
  move(event) {
    const cards = [...this.grid.querySelectorAll(".card")];
    const here = cards.indexOf(document.activeElement);
    if (here < 0) return;
    const columns = cards.filter((card) => card.offsetTop === cards[0].offsetTop).length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -here, End: cards.length - 1 - here };
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const there = here + steps[event.key];
    if (there < 0 && event.key === "ArrowUp") byId("query").focus();
    else cards[Math.min(Math.max(there, 0), cards.length - 1)].focus();
  }

  /** Does something that closes the open moment, and puts the focus on its card. */
  focusAfter(closing) {
    const card = this.grid.querySelector(".card[aria-current]");
    closing();
    (card ?? byId("results")).focus();
  }

  focusFirst(event) {
    const card = this.grid.querySelector(".card");
    if (!card) return;
    event.preventDefault();
    card.focus();
  }

  /** Returns where the card some steps after the open one leads; null at an end. */
  neighbour(steps) {
    const cards = [...this.grid.querySelectorAll(".card")];
    const here = cards.findIndex((card) => card.hasAttribute("aria-current"));
    const there = cards[here < 0 ? 0 : here + steps];
    return there ? { video: there.dataset.video, clip: there.dataset.clip, at: there.dataset.at } : null;
  }
}

/** Returns the body of a search. */
export function searchBody(state, collection) {
  const body = { query: state.query || null, collection: collection?.id, filter: filterOf(state) };
  if (state.like) body.like_clip = state.like;
  if (state.without) body.without = state.without.split(";").map((text) => text.trim()).filter(Boolean);
  if (state.copies) body.dedupe = state.copies;
  if (state.all) body.all_clips = true;
  const least = state.poor ? 0 : collection?.min_match;
  if (least !== undefined) body.min_match = least;
  return body;
}

function filterOf(state) {
  const filter = {};
  if (state.folder) filter.folder = state.folder;
  if (state.name) filter.path_glob = /[*?[]/.test(state.name) ? state.name : `*${state.name}*`;
  if (state.min) filter.min_seconds = Number(state.min);
  if (state.max) filter.max_seconds = Number(state.max);
  if (state.newer) filter.newer_than = state.newer;
  if (state.older) filter.older_than = state.older;
  return filter;
}

function matchLine(match) {
  return make(
    "span",
    { class: "match", title: "How unusual such a match is among the clips that were searched" },
    make("span", { class: "bar", "aria-hidden": "true", vars: { share: String(match.match) } }),
    make("span", {}, `match ${percent(match.match)}`),
    make("span", { class: "score" }, `score ${match.score.toFixed(3)}`),
  );
}
